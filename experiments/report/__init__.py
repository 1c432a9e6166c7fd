"""Runs and sweeps as a page: `python -m experiments.report`."""
