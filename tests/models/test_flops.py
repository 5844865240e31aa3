"""The FLOPs formula against the matrix products that the models actually contain."""

import math

import jax
import jax.extend.core
import jax.numpy as jnp
import pytest

from jaxlm.config import DecoderConfig, EncoderConfig, EncoderDecoderConfig, llama_style
from jaxlm.models import flops, heads
from jaxlm.ops import masks

SIZES = dict(vocab_size=48, dim=24, num_layers=3, num_heads=4, mlp_dim=40, max_len=16)


def product_flops(jaxpr) -> int:
    """2 x (results) x (length of each sum) over all matrix products, inner programs times their trip count."""
    total = 0
    for eqn in jaxpr.eqns:
        # a product with a vector is a mean of the norms, written so for speed
        if eqn.primitive.name == "dot_general" and eqn.invars[1].aval.ndim > 1:
            (summed, _), _ = eqn.params["dimension_numbers"]
            lhs, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
            total += 2 * math.prod(out) * math.prod(lhs[i] for i in summed)
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        total += times * sum(
            product_flops(inner) for inner in jax.extend.core.jaxprs_in_params(eqn.params)
        )
    return total


@pytest.mark.parametrize(
    ("model", "extra_weights"),
    [
        (heads.CausalLM(DecoderConfig(**SIZES)), 0),
        (heads.CausalLM(DecoderConfig(**SIZES, **llama_style(), num_kv_heads=2, head_dim=8)), 0),
        # the dense layer of the head of BERT, which the formula omits
        (heads.MaskedLM(EncoderConfig(**SIZES)), 24 * 24),
    ],
    ids=["gpt2", "llama", "bert"],
)
def test_flops_are_those_of_the_matrix_products(model, extra_weights):
    tokens = jnp.zeros((2, 16), jnp.int32)
    params = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))

    def loss(params):
        return jax.nn.logsumexp(model.apply({"params": params}, tokens), axis=-1).sum()

    counted = product_flops(jax.make_jaxpr(jax.grad(loss))(params).jaxpr) / tokens.size
    assert counted == flops.flops_per_token(model.config, 16) + 6 * extra_weights


def test_an_encoder_decoder_costs_what_its_products_do():
    config = EncoderDecoderConfig(**SIZES | dict(num_layers=2), num_decoder_layers=3)
    model = heads.Seq2SeqLM(config)
    source, target = jnp.zeros((2, 16), jnp.int32), jnp.zeros((2, 4), jnp.int32)
    params = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))

    def loss(params):
        logits = model.apply({"params": params}, source, target)
        return jax.nn.logsumexp(logits, axis=-1).sum()

    counted = product_flops(jax.make_jaxpr(jax.grad(loss))(params).jaxpr) / source.size
    assert counted == flops.flops_per_token(config, 16, output_fraction=4 / 16)
    # a classifier reads with the encoder alone
    encoder = flops.flops_per_token(config.encoder, 16, output_fraction=0.0)
    assert flops.flops_per_token(config, 16, output_fraction=0.0) == encoder


@pytest.mark.parametrize("kind", [DecoderConfig, EncoderConfig])
def test_the_cost_of_a_local_layer_is_that_of_its_window(kind):
    full = kind(**SIZES)
    local = kind(**SIZES, window=3, layer_pattern=("local", "global", "local"))
    mask = masks.matrix(masks.Mask(causal=kind is DecoderConfig, window=3), 16, 16)
    saved_keys = 16 - int(mask.sum(-1).max())
    saved = flops.flops_per_token(full, 16) - flops.flops_per_token(local, 16)
    # 2 layers, 4 heads of width 6; scores and mix; 2 FLOPs; forward and twice that backward
    assert saved == 2 * 4 * 6 * 2 * 2 * 3 * saved_keys


def test_large_models_cost_six_flops_a_parameter():
    gpt2 = DecoderConfig(vocab_size=50257, dim=768, num_layers=12, num_heads=12, max_len=1024)
    # 124.4 million parameters less 1024 positions of 768; attention: 12 L (N H) T
    expected = 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024
    assert flops.flops_per_token(gpt2, 1024) == pytest.approx(expected, rel=1e-3)


def test_logits_at_fewer_positions_cost_less():
    config = EncoderConfig(**SIZES)
    none, all_of_them = (flops.flops_per_token(config, 16, output_fraction=s) for s in (0.0, 1.0))
    assert all_of_them - none == 6 * 24 * 48
