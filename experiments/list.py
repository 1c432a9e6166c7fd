"""The command `medjax list` in a checkout: `python -m experiments.list`."""

import sys

from medjax.lab import console

if __name__ == "__main__":
    sys.exit(console.main(["list", *sys.argv[1:]]))
