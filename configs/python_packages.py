"""Predicts the package of a docstring, from the decoder of python_docs: the default of `python finetune.py`.

Command:   python finetune.py configs/python_packages.py --init runs/python_docs
Hardware:  2 CPU cores
"""

from jaxlm.run.quickstart import finetuning as get_config

__all__ = ["get_config"]
