"""Pretrain a model: `python train.py [CONFIG.py] [--dotted.overrides]`; the same as `jaxlm train`."""

import sys

from jaxlm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
