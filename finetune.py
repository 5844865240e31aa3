"""Fine-tune a model: `python finetune.py [CONFIG.py] [--init RUN_DIR] [--dotted.overrides]`, or `jaxlm finetune`."""

import sys

from jaxlm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
