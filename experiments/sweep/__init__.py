"""Grids of settings, trained together: `python -m experiments.sweep`."""
