"""The command `medjax compare` in a checkout: `python -m experiments.compare`."""

import sys

from medjax.lab import console

if __name__ == "__main__":
    sys.exit(console.main(["compare", *sys.argv[1:]]))
