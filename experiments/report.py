"""The command `medjax report` in a checkout: `python -m experiments.report`."""

import sys

from medjax.lab import console

if __name__ == "__main__":
    sys.exit(console.main(["report", *sys.argv[1:]]))
