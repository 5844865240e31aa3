"""Models in the Hugging Face layout, in and out, without PyTorch: `jaxlm.hf.load(folder_or_hub_id)`.

A family (`family.Family`) is an entry of `families.FAMILIES`, declared in one file with those that are nearly the same:

- `fields` maps the fields of their config.json to ours, in both directions; `fields.py` says how a map reads. What we
  cannot do is refused by name, and fields that the map does not mention are reported. Whether a config of ours belongs
  to the family is not a list of conditions: it does if `read` of what `write` gives is the same model.
- `style` has our fields that are the same in all models of the family.
- `table` and the tables of `heads` say which tensor of theirs is which parameter of ours, for both directions;
  `table.py` says how a table reads. Most of it is written with `linear`, `attention`, `dense`, `norm` and `within`:

      LAYER = attention("self_attn.{}_proj", "attn") | norm("self_attn_layer_norm", "attn_norm") | ...
      table = within("layers.{i}.", "backbone/stack/blocks/", LAYER) | ...

A new family is these four, a line in `families.py`, and a golden folder by `tests/golden/make.py`; `opt.py` is an
example.
"""

from jaxlm.hf.description import describe, is_model
from jaxlm.hf.loaded import LoadedModel
from jaxlm.hf.loading import load

__all__ = ["LoadedModel", "describe", "is_model", "load"]
