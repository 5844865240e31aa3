"""A small Llama-style decoder on the embedded corpus: what `python train.py` runs without arguments.

Command:   python train.py configs/python_docs.py
Hardware:  2 CPU cores
"""

from jaxlm.run.quickstart import pretraining as get_config

__all__ = ["get_config"]
