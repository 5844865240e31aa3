"""How arrays are sharded over the mesh, and that results do not depend on it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from styles import ENCODER_DECODERS, F32, STYLES, language_model

from jaxlm import sharding
from jaxlm.config import DecoderConfig, EncoderDecoderConfig, MeshConfig
from jaxlm.models.heads import Classifier, init_params, unembedding, unembedding_bias
from jaxlm.models.vocabulary import token_cross_entropy
from jaxlm.ops import attention, masks
from jaxlm.params import path_name


def shapes(model):
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0)))


MODELS = {
    **{name: language_model(c) for name, c in (STYLES | ENCODER_DECODERS).items()},
    "mixture": language_model(dataclasses.replace(STYLES["llama"], num_experts=4)),
    "shallow t5": language_model(dataclasses.replace(ENCODER_DECODERS["t5"], num_layers=1)),
    "classifier": Classifier(STYLES["bert"], 3, compute=F32),
}


# --- the rules ---


def test_an_unknown_dim_raises_with_and_without_a_mesh():
    with pytest.raises(KeyError, match="zzz"):
        sharding.constrain(jnp.zeros(2), "zzz")
    with jax.set_mesh(sharding.make_mesh(MeshConfig())), pytest.raises(KeyError, match="zzz"):
        sharding.constrain(jnp.zeros(2), "zzz")


# --- the mesh ---


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        (dict(), (8, 1, 1, 1, 1)),
        (dict(data=1, fsdp=-1), (1, 8, 1, 1, 1)),
        (dict(data=-1, fsdp=2, tensor=2), (2, 2, 1, 1, 2)),
        (dict(data=1, expert=2, context=-1), (1, 1, 2, 4, 1)),
        (dict(data=1, fsdp=2, tensor=4), (1, 2, 1, 1, 4)),
    ],
)
def test_the_mesh_has_the_shape_of_the_config(sizes, shape):
    mesh = sharding.make_mesh(MeshConfig(**sizes))
    assert tuple(mesh.shape.items()) == tuple(zip(sharding.AXES, shape))
    assert mesh.axis_types == (AxisType.Auto,) * 5


@pytest.mark.parametrize(
    "sizes", [dict(data=3), dict(data=2, fsdp=2), dict(fsdp=3), dict(data=1, fsdp=16)]
)
def test_a_mesh_that_does_not_fit_the_devices_is_rejected_in_one_line(sizes):
    with pytest.raises(ValueError, match=r"does not fit 8 device\(s\)") as e:
        sharding.make_mesh(MeshConfig(**sizes))
    assert "\n" not in str(e.value)


@dataclasses.dataclass(frozen=True)
class Chip:
    """What `make_mesh` reads of a device."""

    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "without coordinates"
    process_index: int = 0


@pytest.mark.parametrize(
    ("slices", "sizes", "outer"),
    [
        # the slices are the parts of `data`
        (2, dict(data=2, fsdp=4), (2, 1, 1)),
        (2, dict(data=4, fsdp=1, tensor=2), (2, 1, 1)),
        # `fsdp` is split where `data` has too few parts
        (4, dict(data=2, fsdp=4), (2, 2, 1)),
        (2, dict(data=1, fsdp=4, tensor=2), (1, 2, 1)),
    ],
)
def test_only_outer_axes_lie_across_the_network_between_slices(slices, sizes, outer):
    chips = [Chip(i, i * slices // 8) for i in range(8)]
    grid = sharding.make_mesh(MeshConfig(**sizes), chips).devices
    assert sorted(chip.id for chip in grid.flat) == list(range(8))
    inner = [n // m for n, m in zip(grid.shape, outer)]
    # a block of the grid is one slice
    found = {}
    for index in np.ndindex(grid.shape):
        block = tuple(i // n for i, n in zip(index, inner))
        found.setdefault(block, set()).add(grid[index].slice_index)
    assert len(found) == slices
    assert all(len(own) == 1 for own in found.values())


def test_slices_that_no_outer_axis_can_hold_are_rejected():
    chips = [Chip(i, i // 2) for i in range(8)]
    message = "the 4 slices do not divide mesh.data=1 x mesh.fsdp=2"
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(MeshConfig(data=1, fsdp=2, tensor=4), chips)


def test_the_order_of_devices_without_a_network_of_their_own_is_that_of_jax():
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert (mesh.devices == np.array(jax.devices()).reshape(2, 2, 1, 1, 2)).all()


def test_a_mesh_of_some_of_the_devices():
    mesh = sharding.make_mesh(MeshConfig(fsdp=2), jax.devices()[:4])
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "expert": 1, "context": 1, "tensor": 1}


def test_heads_that_the_tensor_axis_does_not_divide_are_rejected():
    model = language_model(DecoderConfig(vocab_size=64, dim=24, num_heads=6, num_layers=1))
    mesh = sharding.make_mesh(MeshConfig(data=2, tensor=4))
    message = r"mesh.tensor=4 does not divide kv_heads=6 of backbone/stack/blocks/attn/key"
    with pytest.raises(ValueError, match=message):
        sharding.param_shardings(shapes(model), mesh)


def test_a_vocabulary_that_the_tensor_axis_does_not_divide_is_rejected_with_the_way_out():
    model = language_model(DecoderConfig(vocab_size=63, dim=24, num_heads=4, num_layers=1))
    mesh = sharding.make_mesh(MeshConfig(data=2, tensor=4))
    message = r"mesh.tensor=4 does not divide vocab=63 of .*: leave model.vocab_size unset, or"
    with pytest.raises(ValueError, match=message):
        sharding.param_shardings(shapes(model), mesh)


# --- constrain ---


def test_constrain_does_nothing_without_a_mesh():
    x = jnp.zeros((2, 3))
    assert sharding.constrain(x, "batch", "embed") is x
    assert sharding.batch_shards() == 1


def test_fewer_rows_or_positions_than_the_mesh_has_parts_for_are_whole():
    # XLA would pad the row of a sample to one for each device, and warn that it moves everything in each layer
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, context=2))
    with jax.set_mesh(mesh):
        split = jax.make_jaxpr(lambda x: sharding.constrain(x, "batch", "seq", None))
        spec = lambda *shape: split(jnp.zeros(shape)).eqns[0].params["sharding"].spec
        assert spec(1, 1, 4) == P(None, None, None)
        assert spec(4, 2, 4) == P(("data", "fsdp", "expert"), "context", None)


def test_constrain_shards_the_array_over_the_mesh():
    with jax.set_mesh(sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        assert sharding.batch_shards() == 4
        x = jax.jit(lambda x: sharding.constrain(x, "batch", None, "mlp"))(jnp.zeros((8, 3, 4)))
    assert x.sharding.spec == P(("data", "fsdp"), None, "tensor")
    assert x.addressable_shards[0].data.shape == (2, 3, 2)


# --- optimizer states ---


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_optimizer_states_are_sharded_like_their_parameters(optimizer):
    factored = optimizer == "adafactor"
    # small enough to be factored
    optimizer = optax.adafactor(1e-3, min_dim_size_to_factor=8) if factored else optax.adamw(1e-3)
    params = shapes(MODELS["llama"])
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    own = jax.tree_util.tree_leaves_with_path(sharding.param_shardings(params, mesh))
    own = {path_name(path): s for path, s in own}
    state = jax.eval_shape(optimizer.init, params)
    found = sharding.tree_shardings(state, params, mesh)
    sizes = {path_name(p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(params)}
    copies = 0
    for (path, x), s in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(found)):
        name = path_name(path)
        param = next((p for p in own if name.endswith("/" + p)), None)
        if param is not None and x.shape == sizes[param]:
            assert s == own[param], name
            copies += 1
        else:
            assert s.spec == P(), name
    assert 0 < copies < len(own) if factored else copies == 2 * len(own)


# --- training ---

OPTIMIZER = optax.adamw(1e-2, eps=1e-3)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, 40, (8, 12))
SEGMENTS = np.repeat([[1] * 5 + [2] * 4 + [0] * 3], 8, axis=0)


def train(name, config, devices=None):
    """Losses of three steps, and the state before and after them, on a mesh."""
    model = MODELS[name]
    texts = [TOKENS, TOKENS] if isinstance(model.config, EncoderDecoderConfig) else [TOKENS]
    mesh = sharding.make_mesh(config, devices)

    def init(key):
        params = init_params(model, key)
        return params, OPTIMIZER.init(params)

    def loss(params):
        inputs = dict(segment_ids=SEGMENTS)
        hidden = model.apply({"params": params}, *texts, method="hidden", **inputs)
        targets = np.roll(TOKENS, -1, 1)
        weights = (SEGMENTS > 0).astype(np.float32)
        bias = unembedding_bias(params)
        table = unembedding(params)
        return token_cross_entropy(hidden, table, targets, weights, bias=bias).loss / weights.sum()

    abstract = jax.eval_shape(init, jax.random.key(0))
    place = sharding.tree_shardings(abstract, abstract[0], mesh)

    @functools.partial(jax.jit, out_shardings=(place, None))
    def step(state):
        params, opt_state = state
        value, gradients = jax.value_and_grad(loss)(params)
        updates, opt_state = OPTIMIZER.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    with jax.set_mesh(mesh):
        state = first = jax.jit(init, out_shardings=place)(jax.random.key(0))
        losses = []
        for _ in range(3):
            state, value = step(state)
            losses.append(float(value))
    return losses, first, state


@functools.cache
def alone(name):
    return train(name, MeshConfig(), jax.devices()[:1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("llama", dict(data=1, fsdp=8)),
        ("llama", dict(data=2, fsdp=2, tensor=2)),
        ("llama", dict(data=8)),
        # two key heads, each on two devices
        ("llama", dict(data=2, tensor=4)),
        ("bert", dict(data=2, fsdp=2, tensor=2)),
        ("deberta", dict(data=2, fsdp=2, tensor=2)),
        ("shallow t5", dict(data=2, fsdp=2, tensor=2)),
    ],
    ids=str,
)
def test_training_on_any_mesh_equals_training_on_one_device(name, sizes):
    losses, first, last = train(name, MeshConfig(**sizes))
    want_losses, want_first, want_last = alone(name)
    assert losses[2] < losses[0]
    np.testing.assert_allclose(losses, want_losses, rtol=1e-5)
    # random numbers are equal but for rounding: XLA for CPUs may compute the end of a shard without vector instructions
    for got, want in zip(jax.tree.leaves(first), jax.tree.leaves(want_first)):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    for got, want in zip(jax.tree.leaves(last), jax.tree.leaves(want_last)):
        np.testing.assert_allclose(got, want, atol=1e-5)

    # every device holds its shard, at the start and after the steps
    tensor, fsdp = sizes.get("tensor", 1), sizes.get("fsdp", 1)
    for params, opt_state in (first, last):
        for tree in (params, opt_state[0].mu, opt_state[0].nu):
            for x, split in splits(tree["backbone"], tensor, fsdp):
                share = tuple(np.divide(x.shape, split).astype(int))
                assert x.addressable_shards[0].data.shape == share


def splits(backbone, tensor, fsdp):
    """Some parameters, and the number of shards of each of their dims."""
    decoder = backbone.get("decoder", backbone)
    blocks = decoder["stack"]["blocks"]
    key = blocks["attn"]["key"]
    more = [(blocks["cross_attn"]["key"], (1, fsdp, tensor, 1))] if "cross_attn" in blocks else []
    if "relative_bias" in decoder["stack"]:
        more.append((decoder["stack"]["relative_bias"], (1, 1)))
    return [
        *more,
        (backbone["embed"]["token"]["embedding"], (tensor, fsdp)),
        (blocks["attn"]["query"], (1, fsdp, tensor, 1)),
        (key, (1, fsdp, 1 if key.shape[2] < tensor else tensor, 1)),
        (blocks["attn"]["out"], (1, tensor, 1, fsdp)),
        (blocks["mlp"]["down"], (1, tensor, fsdp)),
        (blocks["mlp_norm"]["scale"], (1, 1)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["xla", "splash"])
def test_generation_and_kernels_with_fewer_key_heads_than_parts(implementation):
    config = dataclasses.replace(STYLES["llama"], max_len=128)
    assert config.kv_heads == 2
    model = language_model(config, dataclasses.replace(F32, attention=implementation))
    tokens = RNG.integers(1, 40, (2, 128))
    params = init_params(model, jax.random.key(0))
    run = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens, method="hidden"))
    want = run(params, tokens)
    mesh = sharding.make_mesh(MeshConfig(data=2, tensor=4))
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.param_shardings(params, mesh))
        np.testing.assert_allclose(run(placed, tokens), want, atol=2e-5)


@pytest.mark.slow
def test_splash_attention_on_a_mesh_equals_xla_without_one():
    q, k, v = (RNG.normal(size=(4, 128, n, 32)).astype(np.float32) for n in (4, 2, 2))
    ids = np.repeat([[1] * 70 + [2] * 58], 4, axis=0)
    mask = masks.Mask(causal=True, q_segment_ids=ids, kv_segment_ids=ids)
    want = attention.attend(q, k, v, mask, implementation="xla")
    with jax.set_mesh(sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        run = jax.jit(functools.partial(attention.attend, implementation="splash"))
        got = run(q, k, v, mask)
        assert len(got.sharding.device_set) == 8
        np.testing.assert_allclose(got, want, atol=2e-6)
        # without segments
        got = run(q, k, v, masks.Mask(causal=True))
        want = attention.attend(q, k, v, masks.Mask(causal=True), implementation="xla")
        np.testing.assert_allclose(got, want, atol=2e-6)
        with pytest.raises(ValueError, match="a batch of 2 that the 4 batch shards"):
            run(q[:2], k[:2], v[:2], masks.Mask(causal=True))
