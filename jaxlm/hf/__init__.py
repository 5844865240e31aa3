"""Models of the Hugging Face world, in and out, without PyTorch: `jaxlm.hf.load(folder_or_hub_id)`.

A family (`family.Family`) is one entry of `families.FAMILIES`, in a file with those that are nearly the same:

- `read` turns their config.json into our config. It asks for every field that matters through `fields.Fields`, which
  refuses by name what we cannot do, and warns of names that nothing asked for.
- `write` is the way back. Whether a config of ours is this family is no list of conditions: it is, if `read` of what
  `write` gives is the same model.
- `table` and the tables of `heads` say which tensor of theirs is which parameter of ours, for both directions; how a
  table reads is in `table.py`. Most of it is written with `linear`, `dense`, `norm` and `within`:

      LAYER = linear("attention.self.query", "attn/query") | norm("attention.output.LayerNorm", "attn_norm") | ...
      table = within("encoder.layer.{i}.", "backbone/stack/blocks/", LAYER) | ...

A new family is these four, its line in `families.py`, and a golden file by `tests/golden/make.py`.
"""

from jaxlm.hf.description import describe, is_model
from jaxlm.hf.loaded import LoadedModel
from jaxlm.hf.loading import load

__all__ = ["LoadedModel", "describe", "is_model", "load"]
