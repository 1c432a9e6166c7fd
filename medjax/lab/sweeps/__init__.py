"""Grids of settings, trained together: `medjax sweep`."""
