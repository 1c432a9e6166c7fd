"""The command `medjax sweep` in a checkout: `python -m experiments.sweep`."""

import sys

from medjax.lab.commands.sweep import main as main

if __name__ == "__main__":
    sys.exit(main())
