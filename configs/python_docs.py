"""A small Llama-style decoder on the built-in corpus: the default of `python train.py`.

Command:   python train.py configs/python_docs.py
Hardware:  2 CPU cores
"""

from jaxlm.run.quickstart import pretraining as get_config

__all__ = ["get_config"]
