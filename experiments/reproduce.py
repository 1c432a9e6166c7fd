"""The command `medjax reproduce` in a checkout: `python -m experiments.reproduce`."""

import sys

from medjax.lab import console

if __name__ == "__main__":
    sys.exit(console.main(["reproduce", *sys.argv[1:]]))
