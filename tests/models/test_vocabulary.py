"""The loss of hidden states with the output table, on meshes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collectives import collectives

from jaxlm import sharding
from jaxlm.config import MeshConfig
from jaxlm.models import vocabulary
from jaxlm.ops import losses

B, T, D, V = 8, 6, 16, 32
RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(B, T, D)).astype(np.float32)
TABLE = RNG.normal(size=(V, D)).astype(np.float32)
BIAS = RNG.normal(size=V).astype(np.float32)
TARGETS = RNG.integers(0, V, (B, T))
WEIGHTS = RNG.integers(0, 3, (B, T)).astype(np.float32)
OPTIONS = dict(softcap=5.0, z_loss=0.1, label_smoothing=0.2, smoothed_ids=V - 3)


def loss(hidden, table, bias, **options):
    sums = vocabulary.token_cross_entropy(
        hidden, table, TARGETS[: len(hidden)], WEIGHTS[: len(hidden)], bias=bias, **options
    )
    return sums.loss, sums.correct


def compiled(mesh, rows=B, bias=BIAS, **options):
    """The program of the loss and its gradients, with arguments as a training step has them, and these."""
    place = lambda x, *dims: jax.device_put(x, jax.NamedSharding(mesh, sharding.spec(*dims)))
    arguments = [
        place(HIDDEN[:rows], *["batch"] * (rows == B)),
        place(TABLE, "vocab", "embed"),
        None if bias is None else place(bias, "vocab"),
    ]
    wanted = (0, 1) if bias is None else (0, 1, 2)
    with jax.set_mesh(mesh):
        f = jax.value_and_grad(functools.partial(loss, **options), wanted, has_aux=True)
        placement = [x.sharding for x in arguments[: len(wanted)]]
        f = jax.jit(f, out_shardings=(None, tuple(placement)))
        return f.lower(*arguments).compile(), arguments


@pytest.mark.parametrize("gradient", ["whole", "in blocks"])
@pytest.mark.parametrize(
    ("sizes", "rows", "options"),
    [
        (dict(data=2, fsdp=2, tensor=2), B, OPTIONS),
        (dict(data=1, fsdp=8), B, dict(bias=None)),
        # rows that the mesh does not divide
        (dict(data=2, fsdp=4), 6, OPTIONS),
        # nothing that splits the rows
        (dict(data=1, tensor=8), B, OPTIONS),
    ],
)
def test_loss_and_gradients_on_a_mesh_equal_those_on_one_device(
    sizes, rows, options, gradient, monkeypatch
):
    if gradient == "in blocks":
        # four for a device's rows
        monkeypatch.setattr(vocabulary, "_block_count", lambda *_: 4)
    # two positions of a device's rows at a time, or of all rows
    monkeypatch.setitem(losses.MAX_LOGITS, "cpu", 2 * V)
    program, arguments = compiled(sharding.make_mesh(MeshConfig(**sizes)), rows, **options)
    got = program(*arguments)
    options = options | dict(bias=options.get("bias", BIAS))
    wanted = (0, 1) if options["bias"] is None else (0, 1, 2)
    run = lambda hidden, table, bias: loss(hidden, table, **options | dict(bias=bias))
    want = jax.value_and_grad(run, wanted, has_aux=True)(HIDDEN[:rows], TABLE, options["bias"])
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_the_table_is_gathered_and_its_gradient_reduced_outside_of_the_loop(monkeypatch):
    monkeypatch.setitem(losses.MAX_LOGITS, "cpu", 2 * V)
    text = compiled(sharding.make_mesh(MeshConfig(data=2, fsdp=4)))[0].as_text()
    assert " while(" in text
    found = collectives(text)
    # the share of a device is a quarter
    assert any(size >= V * D // 4 and not in_loop for _, size, in_loop in found)
    assert [x for x in found if x[2]] == []


def test_the_gradient_of_the_table_is_summed_in_float32(monkeypatch):
    monkeypatch.setitem(losses.MAX_LOGITS, "cpu", 2 * V)
    mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=8))
    run = jax.value_and_grad(loss, 1, has_aux=True)
    hidden = HIDDEN.astype(jnp.bfloat16)
    want = jax.jit(run)(hidden, TABLE, BIAS)[1]
    with jax.set_mesh(mesh):
        got = jax.jit(run)(hidden, TABLE, BIAS)[1]
    # a sum of eight terms rounded to bfloat16 would differ by 1e-3 of the largest
    np.testing.assert_allclose(got, want, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("sizes", [dict(data=2, fsdp=4), dict(data=1, fsdp=4, tensor=2)], ids=str)
def test_the_gradient_of_a_large_table_is_never_whole(sizes, monkeypatch):
    vocab, dim = 1024, D
    mesh = sharding.make_mesh(MeshConfig(**sizes))
    own = vocab // mesh.shape["tensor"]
    monkeypatch.setattr(vocabulary, "MAX_GRADIENT", own * dim // 4)
    shapes = [((B, T, dim), "batch"), ((vocab, dim), "vocab", "embed"), ((vocab,), "vocab")]
    place = lambda dims: jax.NamedSharding(mesh, sharding.spec(*dims))
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place(dims)) for shape, *dims in shapes
    ]
    with jax.set_mesh(mesh):
        run = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
        placement = (None, tuple(x.sharding for x in arguments))
        text = jax.jit(run, out_shardings=placement).lower(*arguments).compile().as_text()
    reduced = [size for name, size, looped in collectives(text) if looped and "reduce" in name]
    assert 0 < max(reduced) <= own * dim // 4
    # the hidden states are gathered in their own dtype, which is float32 here: the table once, in four blocks
    table, block = f"f32[{own},{dim}]", f"f32[{own // 4},{dim}]"
    products = [line for line in text.splitlines() if " dot(" in line and "BTV,BTD->VD" in line]
    assert products and all(block in line and table not in line for line in products)


def test_blocks_are_as_few_as_fit(monkeypatch):
    shape = (32 * 4, 4096, 4096)
    # without a mesh there is nothing to reduce
    assert vocabulary._block_count(shape, 128_256) == 1
    chips = jax.sharding.AbstractMesh(
        (1, 32, 1, 1, 1),
        sharding.AXES,
        axis_types=(jax.sharding.AxisType.Auto,) * len(sharding.AXES),
        abstract_device=jax.sharding.AbstractDevice("TPU v5p", 1, platform="tpu"),
    )
    with jax.sharding.use_abstract_mesh(chips):
        # 16384 positions of a device: 2^27 logits are those of 8192 entries
        assert vocabulary._block_count(shape, 128_256) == 16
        assert vocabulary._block_count(shape, 32_000) == 1
        # a prime number of entries
        assert vocabulary._block_count(shape, 128_257) == 1
