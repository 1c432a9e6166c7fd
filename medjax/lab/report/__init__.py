"""Runs and sweeps as a page: `medjax report`."""
