"""Run the command ``edge-spine`` by ``python -m edge_spine``."""

import sys

from edge_spine.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
