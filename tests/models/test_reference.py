"""Logits against tiny models of transformers; tests/golden/make.py makes the files and says what is in them."""

import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors import safe_open
from styles import language_model

from jaxlm.config import DecoderConfig, EncoderConfig, files
from jaxlm.models.heads import init_params

GOLDEN = sorted((pathlib.Path(__file__).parents[1] / "golden").glob("*.safetensors"))


def read(path):
    """The config, the nested parameters, and the rest."""
    with safe_open(path, "numpy") as f:
        config = json.loads(f.metadata()["config"])
        arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
    kind = {"DecoderConfig": DecoderConfig, "EncoderConfig": EncoderConfig}[config["class"]]
    params = {}
    for name in [n for n in arrays if "/" in n]:
        *folders, last = name.split("/")
        place = params
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = jax.numpy.asarray(arrays.pop(name))
    return files.from_dict(kind, config), params, arrays


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_logits_equal_those_of_transformers(path):
    config, params, golden = read(path)
    model = language_model(config)
    expected = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, expected)

    real = np.arange(golden["tokens"].shape[1]) < golden["lengths"][:, None]
    inputs = dict(segment_ids=real.astype(np.int32))
    if "token_types" in golden:
        inputs["token_types"] = golden["token_types"]
    logits = jax.jit(model.apply)({"params": params}, golden["tokens"], **inputs)
    assert golden["logits"][real].std() > 0.5
    np.testing.assert_allclose(np.asarray(logits)[real], golden["logits"][real], atol=5e-5)


def test_there_are_golden_files():
    assert len(GOLDEN) == 9
