"""The commands of the console program `medjax`."""
