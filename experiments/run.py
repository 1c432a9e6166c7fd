"""The command `medjax run` in a checkout: `python -m experiments.run`."""

import sys

from medjax.lab.commands.run import main as main

if __name__ == "__main__":
    sys.exit(main())
