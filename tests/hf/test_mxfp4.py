"""Experts stored in mxfp4: every number is read exactly, and files that do not fit are refused."""

import dataclasses
import json
import shutil

import golden
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlm import hf
from jaxlm.hf import export, mxfp4, weights
from jaxlm.models import heads

NUMBERS = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
RNG = np.random.default_rng(0)


def packed(experts, outputs, groups):
    """Random blocks and scales."""
    blocks = RNG.integers(0, 256, (experts, outputs, groups, 16)).astype(np.uint8)
    return blocks, RNG.integers(120, 130, blocks.shape[:-1]).astype(np.uint8)


def by_definition(blocks, scales):
    """Number by number: sign, value, exponent of its group; [E, inputs, outputs]."""
    experts, outputs, groups, _ = blocks.shape
    result = np.zeros((experts, groups * 32, outputs))
    for e, o, g, i in np.ndindex(experts, outputs, groups, 32):
        byte = int(blocks[e, o, g, i // 2])
        code = byte >> 4 if i % 2 else byte & 15
        number = NUMBERS[code & 7] * (-1 if code & 8 else 1)
        result[e, g * 32 + i, o] = number * 2.0 ** (int(scales[e, o, g]) - 127)
    return result


def test_every_number_is_exact_and_rows_can_be_read_alone(tmp_path):
    blocks, scales = packed(3, 5, 2)
    save_file({"x_blocks": blocks, "x_scales": scales, "y": scales}, tmp_path / "model.safetensors")
    found = mxfp4.unpacked(weights.find(tmp_path))
    assert set(found) == {"x", "y"}
    want = by_definition(blocks, scales)
    np.testing.assert_array_equal(found["x"].read(), want)
    np.testing.assert_array_equal(found["x"].read(slice(1, 3)), want[1:3])
    assert found["x"].shape == want.shape


def test_a_scale_that_is_missing_or_of_another_shape_is_named(tmp_path):
    blocks, scales = packed(1, 2, 1)
    for tensors in ({"x_blocks": blocks}, {"x_blocks": blocks, "x_scales": scales[:, :1]}):
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match="x_blocks has no x_scales of the same shape"):
            mxfp4.unpacked(weights.find(tmp_path))


@pytest.mark.slow
def test_a_model_with_experts_in_mxfp4_is_that_of_its_numbers(tmp_path):
    config = dataclasses.replace(golden.load("gpt_oss").config, dim=32, mlp_dim=32)
    model = heads.CausalLM(config, golden.F32)
    export.save(tmp_path / "plain", model, heads.init_params(model, jax.random.key(0)))
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    stored = dict(plain)
    for name in plain:
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, inputs, outputs = plain[name].shape
            blocks, scales = packed(experts, outputs, inputs // 32)
            plain[name] = by_definition(blocks, scales).astype(np.float32)
            del stored[name]
            stored |= {name + "_blocks": blocks, name + "_scales": scales}
    shutil.copytree(tmp_path / "plain", tmp_path / "packed")
    save_file(plain, tmp_path / "plain" / "model.safetensors")
    save_file(stored, tmp_path / "packed" / "model.safetensors")
    path = tmp_path / "packed" / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"quantization_config": {"quant_method": "mxfp4"}}))
    ids = np.arange(1, 9)[None]
    want, got = (hf.load(tmp_path / x, compute=golden.F32)(ids) for x in ("plain", "packed"))
    np.testing.assert_array_equal(got, want)
    path.write_text(json.dumps(settings | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(ValueError, match=r"quantization_config.quant_method='awq'"):
        hf.load(tmp_path / "packed")
