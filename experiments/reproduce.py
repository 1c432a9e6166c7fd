"""The command `medjax reproduce` in a checkout: `python -m experiments.reproduce`."""

import sys

from medjax.lab.commands.reproduce import main as main

if __name__ == "__main__":
    sys.exit(main())
