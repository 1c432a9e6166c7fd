"""Studies: data, models, settings, runs, sweeps, reports."""
