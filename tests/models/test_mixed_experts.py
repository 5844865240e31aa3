"""Models in which some layers have experts and others a single MLP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import CausalLM
from jaxlm.config import ComputeConfig, DecoderConfig, GroupConfig, llama_style
from jaxlm.generation.weights import by_layer
from jaxlm.models import flops, heads, surgery
from jaxlm.nn.layer_scan import layers_in_order
from jaxlm.report.overview import count_parameters
from jaxlm.training import groups, optimizer

SMALL = dict(vocab_size=32, dim=16, num_layers=5, num_heads=2, mlp_dim=8, max_len=16, num_experts=3)
CONFIG = DecoderConfig(**llama_style() | SMALL, dense_layers=(3, 0), dense_mlp_dim=24)
MODEL = CausalLM(CONFIG, ComputeConfig(dtype="float32", attention="xla"))
PARAMS = jax.jit(lambda: heads.init_params(MODEL, jax.random.key(0)))()
STACK = PARAMS["backbone"]["stack"]
TOKENS = jnp.arange(24).reshape(2, 12)


def test_layers_without_experts_have_one_mlp_of_their_own_width():
    assert CONFIG.dense_layers == (0, 3)
    assert set(STACK) == {"blocks", "dense_0", "dense_3"}
    assert STACK["blocks"]["mlp"]["expert_up"].shape == (3, 3, 16, 8)
    assert STACK["dense_3"]["mlp"]["up"].shape == (16, 24)
    has_experts = ["router" in layer["mlp"] for layer in layers_in_order(STACK)]
    assert has_experts == [False, True, True, False, True]
    counts = count_parameters(PARAMS)
    assert counts["blocks"] == sum(x.size for x in jax.tree.leaves(STACK))


def test_a_loop_over_layers_gives_what_single_layers_give():
    """Recomputation keeps the loop; parameters by layer do without."""
    # a loop over layers 1 and 2
    compute = ComputeConfig(dtype="float32", attention="xla", remat="full")
    loop = CausalLM(CONFIG, compute)
    loss = lambda model: lambda p: (model.apply({"params": p}, TOKENS) ** 2).mean()
    value, gradient = jax.jit(jax.value_and_grad(loss(loop)))(PARAMS)
    plain, by_hand = jax.jit(jax.value_and_grad(loss(MODEL)))(by_layer(PARAMS))
    np.testing.assert_allclose(value, plain, rtol=1e-6)
    rows = layers_in_order(gradient["backbone"]["stack"])
    for got, want in zip(rows, layers_in_order(by_hand["backbone"]["stack"]), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-7), got, want)


def test_patterns_count_layers_and_not_rows():
    split = groups.Split([GroupConfig(name="last", params=("*blocks[-2:]*",))], PARAMS)
    stack = split.take(PARAMS, "last")["backbone"]["stack"]
    assert set(stack) == {"blocks", "dense_3"}
    # layer 4, the third with experts
    got = stack["blocks"]["mlp"]["router"]
    np.testing.assert_array_equal(got, STACK["blocks"]["mlp"]["router"][2:])
    rest = split.take(PARAMS, "rest")["backbone"]["stack"]
    assert set(rest) == {"blocks", "dense_0"}
    assert rest["blocks"]["mlp"]["router"].shape[0] == 2
    doubled = jax.tree.map(lambda x: 2 * x, split.take(PARAMS, "last"))
    whole = split.put(PARAMS, {"last": doubled})["backbone"]["stack"]
    factors = [float(layer["attn"]["query"].sum()) for layer in layers_in_order(whole)]
    want = [float(layer["attn"]["query"].sum()) for layer in layers_in_order(STACK)]
    np.testing.assert_allclose(factors, np.multiply(want, [1, 1, 1, 2, 2]), rtol=1e-5)
    # names of both kinds, and a whole name
    for pattern, count in (("*/attn/query", 5), ("backbone/stack/dense_0/attn/query", 1)):
        split = groups.Split([GroupConfig(name="some", params=(pattern,))], PARAMS)
        leaves = jax.tree.leaves(split.take(PARAMS, "some"))
        assert sum(x.shape[0] if x.ndim == 4 else 1 for x in leaves) == count


def test_rates_fall_with_the_depth_of_the_layer():
    rates = optimizer.layer_decay_multipliers(0.5, PARAMS)["backbone"]
    of_layer = lambda layer: float(np.ravel(layer["attn"]["query"])[0])
    # factors have a row for each layer of the stack, or none
    stack = jax.tree.map(jnp.asarray, rates["stack"])
    assert [of_layer(x) for x in layers_in_order(stack)] == [2.0**-i for i in (5, 4, 3, 2, 1)]
    assert float(rates["embed"]["token"]["embedding"]) == 2.0**-6


def test_chosen_layers_keep_their_kind():
    config, params = surgery.keep_layers(CONFIG, PARAMS, [3, 1, 4])
    assert (config.dense_layers, config.dense_mlp_dim, config.num_layers) == ((0,), 24, 3)
    got = layers_in_order(params["backbone"]["stack"])
    for layer, want in zip(got, (3, 1, 4), strict=True):
        jax.tree.map(np.testing.assert_array_equal, layer, layers_in_order(STACK)[want])
    logits = CausalLM(config, MODEL.compute).apply({"params": params}, TOKENS)
    assert np.isfinite(logits).all()
    config, params = surgery.keep_layers(CONFIG, PARAMS, [1, 2])
    assert (config.dense_layers, config.dense_mlp_dim) == ((), None)
    assert set(params["backbone"]["stack"]) == {"blocks"}


def test_flops_are_those_of_the_matrices():
    """Twice the multiplications of each matrix that a token passes, three times for forward and backward."""
    layers = layers_in_order(STACK)
    size = lambda x: int(np.prod(x.shape))
    products = 0
    for layer in layers:
        mlp = layer["mlp"]
        products += sum(size(layer["attn"][name]) for name in ("query", "key", "value", "out"))
        if "router" in mlp:
            experts = [mlp[f"expert_{name}"] for name in ("gate", "up", "down")]
            products += size(mlp["router"]) + 2 * sum(size(x) // 3 for x in experts)
        else:
            products += sum(size(mlp[name]) for name in ("gate", "up", "down"))
    scores = 5 * 2 * 16 * 12
    assert flops.flops_per_token(CONFIG, 12) == 6 * (products + scores + 16 * 32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(dense_layers=(5,)), "layers from 0 to 4"),
        (dict(dense_layers=(-1,)), "layers from 0 to 4"),
        (dict(dense_layers=(0, 1, 2, 3, 4)), "are all layers"),
        (dict(dense_layers=(0,), num_experts=None), "without model.num_experts"),
        (dict(dense_mlp_dim=8), "without model.dense_layers"),
        (dict(dense_layers=(0,), dense_mlp_dim=0), "dense_mlp_dim=0"),
        (dict(dense_layers=(0,), layer_groups=1), "layer_groups"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        DecoderConfig(**llama_style() | SMALL | changes)
