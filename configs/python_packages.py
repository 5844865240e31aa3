"""Docstring -> package, from the decoder of python_docs: what `python finetune.py` runs without arguments.

Command:   python finetune.py configs/python_packages.py --init runs/python_docs
Hardware:  2 CPU cores
"""

from jaxlm.run.quickstart import finetuning as get_config

__all__ = ["get_config"]
