"""`python -m jaxlm` is the command `jaxlm`, of this interpreter."""

import sys

from jaxlm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
