"""The command `medjax list` in a checkout: `python -m experiments.list`."""

import sys

from medjax.lab.commands.list import main as main

if __name__ == "__main__":
    sys.exit(main())
