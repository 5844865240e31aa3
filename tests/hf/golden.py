"""The golden folders, and what our models compute on their inputs, layer by layer."""

import dataclasses
import pathlib

import jax
from safetensors import safe_open

from jaxlm import hf
from jaxlm.config import ComputeConfig
from jaxlm.models import heads

ROOT = pathlib.Path(__file__).parents[1] / "golden"
FOLDERS = {path.parent.name: path.parent for path in sorted(ROOT.glob("*/expected.safetensors"))}
F32 = ComputeConfig(dtype="float32", attention="xla", unroll=1)


def load(name, **options):
    return hf.load(FOLDERS[name], compute=F32, **options)


def expected(name):
    """Inputs by transformers' names; and logits, hidden and which tokens are real."""
    with safe_open(FOLDERS[name] / "expected.safetensors", "numpy") as f:
        arrays = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118
    outputs = {key: arrays.pop(key) for key in ("logits", "hidden")}
    return arrays, outputs | {"real": arrays["attention_mask"] > 0}


def first_layers(loaded, count):
    """The backbone of so many layers alone, and without what comes after the last."""
    config = dataclasses.replace(loaded.config, num_layers=count)
    model = heads.Headless(dataclasses.replace(config, final_norm=False), F32)
    params = jax.tree.map(lambda x: x, loaded.params)
    params.pop("head", None)
    backbone = params["backbone"]
    backbone.pop("final_norm", None)
    backbone["stack"]["blocks"] = jax.tree.map(lambda x: x[:count], backbone["stack"]["blocks"])
    return dataclasses.replace(loaded, model=model, params=params, config=config)
