"""From settings and data to the compiled program of a run."""
