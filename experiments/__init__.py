"""What a person runs: data, models, command lines, tables and pictures, around `medjax`."""
