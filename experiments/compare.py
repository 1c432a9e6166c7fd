"""The command `medjax compare` in a checkout: `python -m experiments.compare`."""

import sys

from medjax.lab.commands.compare import main as main

if __name__ == "__main__":
    sys.exit(main())
