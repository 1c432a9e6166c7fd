"""The command `medjax report` in a checkout: `python -m experiments.report`."""

import sys

from medjax.lab.commands.report import main as main

if __name__ == "__main__":
    sys.exit(main())
