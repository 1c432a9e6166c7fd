"""Measured claims, each a command that prints ratios taken in one run."""
