"""The project's own studies, and the commands of `medjax` in a checkout."""
