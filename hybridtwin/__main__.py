"""`python -m hybridtwin` is the command line."""

import sys

from hybridtwin.cli import main

if __name__ == "__main__":
    sys.exit(main())
