"""Commands that measure what the documentation claims; ratios are taken within one run."""
