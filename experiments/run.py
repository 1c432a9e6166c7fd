"""The command `medjax run` in a checkout: `python -m experiments.run`."""

import sys

from medjax.lab import console

if __name__ == "__main__":
    sys.exit(console.main(["run", *sys.argv[1:]]))
