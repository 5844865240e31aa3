"""The fingerprint depends on every bit but not on the sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.checkpoint.fingerprint import fingerprint


def by_hand(words):
    """The sum over 32-bit words, one after another, in Python's integers."""
    total = 0
    for i, word in enumerate(np.ravel(words).tolist()):
        weight = (i * 2654435761 + 0x9E3779B9) % 2**32
        total += word * ((weight ^ (weight >> 15)) | 1)
    return total % 2**32


def test_fingerprint_equals_the_sum_by_hand_for_every_width():
    numbers = np.random.default_rng(0).standard_normal((3, 4, 2), np.float32)
    half = jnp.asarray(numbers).astype(jnp.bfloat16)
    flags = numbers > 0
    assert fingerprint({"a": {"b": numbers}, "c": [half, flags]}) == {
        "a/b": by_hand(numbers.view(np.uint32)),
        "c/0": by_hand(np.asarray(half).view(np.uint16)),
        "c/1": by_hand(flags.view(np.uint8)),
    }
    key = jax.random.key(3)
    assert fingerprint(key) == {"": by_hand(jax.random.key_data(key))}


def test_fingerprint_depends_on_every_bit():
    numbers = np.random.default_rng(1).standard_normal(6, np.float32)
    bits = numbers.view(np.uint32)
    changed = [bits.copy() for _ in range(6 * 32)]
    for i, x in enumerate(changed):
        x[i // 32] ^= np.uint32(1) << np.uint32(i % 32)
    swapped = numbers[[1, 0, 2, 3, 4, 5]]
    sums = fingerprint([numbers, swapped, *(x.view(np.float32) for x in changed)])
    same = [name for name, value in sums.items() if value == sums["0"]]
    assert same == ["0"]


@pytest.mark.parametrize("shape", [(8, 1), (2, 4), (1, 1)])
def test_fingerprint_is_the_same_on_every_mesh(shape):
    x = np.random.default_rng(2).standard_normal((16, 8), np.float32)
    devices = jax.devices()[: shape[0] * shape[1]]
    mesh = jax.make_mesh(shape, ("data", "model"), (AxisType.Auto,) * 2, devices=devices)
    here = jax.device_put(x, NamedSharding(mesh, P("data", "model")))
    alone = jax.device_put(x, jax.devices()[-1])
    with jax.set_mesh(jax.make_mesh((8,), ("other",), (AxisType.Auto,))):
        assert fingerprint([here, alone]) == {"0": by_hand(x.view(np.uint32))} | {
            "1": by_hand(x.view(np.uint32))
        }
