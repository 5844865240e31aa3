"""Imports and exports models in the Hugging Face layout without PyTorch: `jaxlm.hf.load(folder_or_hub_id)`.

A family (`family.Family`) is an entry of `families.FAMILIES`; closely related families are declared in one file:

- `fields` maps the fields of config.json to those of a jaxlm config, in both directions; see `fields.py` for the
  format. An unsupported value raises an error that names its field, and fields that the map does not mention are
  reported in a warning. A jaxlm config belongs to the family if `read(write(config))` is the same model.
- `style` has the jaxlm fields that are the same in all models of the family.
- `table` and the tables of `heads` map tensor names to jaxlm parameters, in both directions; see `table.py` for the
  format. Most tables are built with `linear`, `attention`, `dense`, `norm` and `within`:

      LAYER = attention("self_attn.{}_proj", "attn") | norm("self_attn_layer_norm", "attn_norm") | ...
      table = within("layers.{i}.", "backbone/stack/blocks/", LAYER) | ...

To add a family, define these four, add a line to `families.py` and create a golden folder with
`tests/golden/make.py`; `opt.py` is an example.
"""

from jaxlm.hf.description import describe, is_model
from jaxlm.hf.loaded import LoadedModel
from jaxlm.hf.loading import load

__all__ = ["LoadedModel", "describe", "is_model", "load"]
