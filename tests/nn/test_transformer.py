"""A stack of blocks of several kinds, against a loop over its blocks."""

import dataclasses
import operator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import ENCODER_DECODERS, F32, STYLES, hidden, language_model, params

from jaxlm.config import ComputeConfig
from jaxlm.models.heads import init_params
from jaxlm.nn.transformer import AttentionInputs, Block, Stack
from jaxlm.ops import attention, masks, positions, target

B, T = 2, 12
POSITIONS = np.broadcast_to(np.arange(T), (B, T))
SEGMENTS = np.broadcast_to(np.repeat([1, 2, 0], [6, 4, 2]), (B, T)).astype(np.int32)


@pytest.mark.parametrize("unroll", [0, 1])
@pytest.mark.parametrize("style", ["alternating", "modernbert", "olmo"])
def test_values_and_gradients_of_a_stack_equal_a_loop_over_its_blocks(style, unroll):
    c, blocks = STYLES[style], params(style)["backbone"]["stack"]["blocks"]
    # a scan over periods and a layer outside it
    assert c.num_layers == 5
    causal = style != "modernbert"
    mask = masks.Mask(causal=causal, q_segment_ids=SEGMENTS, kv_segment_ids=SEGMENTS)

    def stacked(blocks, x):
        stack = Stack(c, dataclasses.replace(F32, unroll=unroll))
        return stack.apply({"params": {"blocks": blocks}}, x, mask, token_positions=POSITIONS)[0]

    def looped(blocks, x):
        for i, is_local in enumerate(c.local_layers):
            theta = c.rope_local_theta if is_local and c.rope_local_theta else c.rope_theta
            inputs = AttentionInputs(
                dataclasses.replace(mask, window=c.window if is_local else None),
                positions.rope_tables(POSITIONS, c.rotary_dim, theta)
                if c.rotary_layers[i]
                else None,
                None,
            )
            block = Block(c, F32, has_attn_norm=c.first_attn_norm or i > 0)
            layer = jax.tree.map(operator.itemgetter(i), blocks)
            x = block.apply({"params": layer}, x, inputs)[0]
        return x

    x = np.random.default_rng(0).normal(size=(B, T, c.dim)).astype(np.float32)

    def value_and_gradients(f):
        return jax.jit(jax.value_and_grad(lambda *args: jnp.sin(f(*args)).sum(), (0, 1)))(blocks, x)

    got, want = value_and_gradients(stacked), value_and_gradients(looped)
    np.testing.assert_allclose(got[0], want[0], atol=1e-3)
    for a, b in zip(jax.tree.leaves(got[1]), jax.tree.leaves(want[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_layers_of_a_group_equal_layers_with_copies_of_its_parameters(remat):
    c, blocks = STYLES["albert"], params("albert")["backbone"]["stack"]["blocks"]
    own = dataclasses.replace(c, layer_groups=None)
    assert (c.num_layers, c.layer_groups, own.block_of_layer) == (4, 2, (0, 1, 2, 3))
    compute = dataclasses.replace(F32, unroll=1, remat=remat)
    x = np.random.default_rng(0).normal(size=(B, T, c.dim)).astype(np.float32)

    def value_and_gradient(config, copies):
        def loss(blocks):
            blocks = jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), blocks)
            stack = Stack(config, compute)
            y = stack.apply({"params": {"blocks": blocks}}, x, masks.Mask(), token_positions=None)
            return jnp.sin(y[0]).sum()

        return jax.jit(jax.value_and_grad(loss))(blocks)

    got, want = value_and_gradient(c, 1), value_and_gradient(own, 2)
    np.testing.assert_allclose(got[0], want[0], atol=1e-3)
    for a, b in zip(jax.tree.leaves(got[1]), jax.tree.leaves(want[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    ("platform", "remat", "loops"),
    [("cpu", "none", 0), ("gpu", "none", 0), ("gpu", "full", 1), ("tpu", "none", 1)],
)
def test_the_platform_decides_whether_layers_are_unrolled(platform, remat, loops):
    compute = dataclasses.replace(F32, remat=remat, unroll=0)
    tokens = np.ones((B, T), int)
    with target.compile_for(platform):
        traced = jax.make_jaxpr(lambda p: hidden(STYLES["gpt2"], p, tokens, compute))(
            params("gpt2")
        )
    # the scan with all its layers unrolled is an ordinary sequence in the compiled program
    scans = [e.params for e in traced.eqns if e.primitive.name == "scan"]
    assert sum(scan["unroll"] < scan["length"] for scan in scans) == loops


@pytest.mark.parametrize(
    ("config", "lines"),
    [
        # layers of two kinds
        (STYLES["alternating"], {"splash"}),
        (STYLES["modernbert"], {"splash"}),
        # cross-attention has no bias
        (ENCODER_DECODERS["t5"], {"splash", "xla: splash does not support a bias on the scores"}),
    ],
)
def test_which_attention_a_model_has_on_tpus(config, lines):
    model = language_model(dataclasses.replace(config, max_len=128), ComputeConfig())
    texts = [jax.ShapeDtypeStruct((B, 128), jnp.int32)] * (
        2 if config.positions == "relative" else 1
    )
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    run = lambda params, *texts: model.apply({"params": params}, *texts, method="hidden")
    with target.compile_for("tpu"), attention.choices() as found:
        jax.eval_shape(run, params, *texts)
    assert set(found) == lines


@pytest.mark.parametrize("implementation", ["splash", "cudnn"])
@pytest.mark.parametrize("style", ["alternating", "modernbert"])
def test_kernels_get_the_mask_rules_of_both_kinds_of_layers(style, implementation):
    config, windows = STYLES[style], []

    def attend(q, k, v, mask, **options):
        assert mask.dense is None
        windows.append(mask.window)
        return q

    tokens = np.ones((B, T), int)
    compute = dataclasses.replace(F32, attention=implementation, unroll=1)
    with mock.patch.object(attention, "attend", attend):
        jax.eval_shape(lambda tree: hidden(config, tree, tokens, compute), params(style))
    # the scan's body is traced once
    local, everywhere = config.window, None
    expected = {
        "alternating": [local, everywhere, local],
        "modernbert": [everywhere, local, everywhere],
    }
    assert windows == expected[style]


def test_the_matrices_of_both_kinds_are_computed_once():
    config, calls = STYLES["alternating"], []
    matrix = masks.matrix

    def counted(mask, *sizes):
        calls.append((mask.window, mask.dense is None))
        return matrix(mask, *sizes)

    tokens = np.ones((B, T), int)
    with mock.patch.object(masks, "matrix", counted):
        jax.eval_shape(lambda tree: hidden(config, tree, tokens), params("alternating"))
    assert sorted(w or 0 for w, is_rule in calls if is_rule) == [0, config.window]
