"""What a person runs: configurations, data, models, runs, sweeps and reports."""
