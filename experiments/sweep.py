"""The command `medjax sweep` in a checkout: `python -m experiments.sweep`."""

import sys

from medjax.lab import console

if __name__ == "__main__":
    sys.exit(console.main(["sweep", *sys.argv[1:]]))
