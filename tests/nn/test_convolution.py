"""The convolution beside the first block: its sum by definition, texts packed in a row, and its way back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import ComputeConfig, EncoderConfig
from jaxlm.hf import export
from jaxlm.models import heads
from jaxlm.nn.convolution import convolve

F32 = ComputeConfig(dtype="float32", attention="xla")
CONFIG = EncoderConfig(
    vocab_size=20,
    dim=8,
    num_layers=3,
    num_heads=2,
    max_len=16,
    convolution=3,
    convolution_activation="tanh",
)


def test_the_sum_over_neighbours_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    x, taps = rng.standard_normal((2, 7, 4)), rng.standard_normal((5, 4, 4))
    bias, texts = rng.standard_normal(4), np.array([[1, 1, 1, 2, 2, 2, 2], [0, 0, 1, 1, 1, 0, 0]])
    want = np.zeros_like(x) + bias
    for b, t, k in np.ndindex(2, 7, 5):
        s = t + k - 2
        if 0 <= s < 7 and texts[b, s] == texts[b, t]:
            want[b, t] += x[b, s] @ taps[k]
    got = convolve(*(jnp.asarray(a, jnp.float32) for a in (x, taps, bias)), jnp.asarray(texts))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_texts_in_one_row_are_read_as_alone():
    model = heads.Headless(CONFIG, F32)
    params = heads.init_params(model, jax.random.key(0))
    apply = jax.jit(lambda tokens, **more: model.apply({"params": params}, tokens, **more))
    tokens = jnp.arange(1, 11)[None]
    texts = jnp.array([[1] * 6 + [2] * 4])
    positions = jnp.array([[*range(6), *range(4)]])
    packed = apply(tokens, segment_ids=texts, positions=positions)
    for part in (slice(0, 6), slice(6, 10)):
        alone = apply(tokens[:, part])
        np.testing.assert_allclose(packed[:, part], alone, atol=1e-5)


def test_it_is_debertas_and_no_other_class():
    relative = dict(relative_scores="disentangled", position_offset=0)
    deberta = dataclasses.replace(CONFIG, positions="relative", **relative)
    choice = export.choose(heads.Headless(deberta, F32))
    assert choice.architecture == "DebertaV2Model"
    assert choice.settings["conv_kernel_size"] == 3
    assert choice.settings["conv_act"] == "tanh"
    # otherwise a BERT
    assert export.choose(heads.Headless(CONFIG, F32)).architecture == "DebertaV2Model"
    with pytest.raises(ValueError, match=r"convolution=2 must be odd"):
        dataclasses.replace(CONFIG, convolution=2)
