"""`python -m memover`: the command line."""

import sys

from memover.cli import main

if __name__ == "__main__":
    sys.exit(main())
