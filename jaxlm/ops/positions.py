"""Position encodings: rotary (with scaling for long contexts), sinusoidal, and relative by buckets of distance.

Letters: B batch, T query positions, S key positions, D model width, N heads.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config import RopeScaling
from jaxlm.ops import target, tpu


def rope_frequencies(
    rotary_dim: int, theta: float, scaling: RopeScaling | None = None, *, is_long: bool = False
) -> tuple[np.ndarray, float]:
    """Angle per position of each rotated pair [R], and the factor on cos and sin (1 except for yarn and longrope).

    Su et al. 2021 (2104.09864, section 3.2.2); scalings as named in `RopeScaling`. `is_long`: of longrope, those of a
    row of more than `original_max_len` tokens. Those of `dynamic` are those of a shorter row.
    """
    freqs = theta ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)
    if scaling is None or scaling.kind == "dynamic":
        return freqs, 1.0
    if scaling.kind == "linear":
        return freqs / scaling.factor, 1.0
    if scaling.kind == "longrope":
        divisors = scaling.long_factor if is_long else scaling.short_factor
        growth = math.log(max(scaling.factor, 1.0)) / math.log(scaling.original_max_len)
        factor = scaling.attention_factor
        return freqs / np.array(divisors), math.sqrt(1 + growth) if factor is None else factor
    rotations = scaling.original_max_len * freqs / (2 * math.pi)
    if scaling.kind == "llama3":
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        keep = np.clip((rotations - low) / (high - low), 0, 1)
        return keep * freqs + (1 - keep) * freqs / scaling.factor, 1.0

    def pair_with(rotations: float) -> float:
        """Index of the pair that completes this many rotations over the original length."""
        length = scaling.original_max_len / (rotations * 2 * math.pi)
        return rotary_dim * math.log(length) / (2 * math.log(theta))

    low, high = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.whole_pairs:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    high = low + 1e-3 if high == low else high
    ramp = (np.arange(rotary_dim // 2) - low) / (high - low)
    keep = 1 - np.clip(ramp, 0, 1)
    freqs = keep * freqs + (1 - keep) * freqs / scaling.factor
    factor = scaling.attention_factor
    return freqs, 0.1 * math.log(max(scaling.factor, 1.0)) + 1.0 if factor is None else factor


def rope_tables(
    positions: Int[Array, "B T"],
    rotary_dim: int,
    theta: float,
    scaling: RopeScaling | None = None,
    *,
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Float[Array, "B T 1 R"], Float[Array, "B T 1 R"]]:
    """Cosines and sines for `rope`, float32, R pairs; computed once for all layers.

    `lengths` are those of the texts, which matter to scalings by length alone; None: at most `original_max_len`.
    """
    fixed, factor = rope_frequencies(rotary_dim, theta, scaling)
    freqs = jnp.asarray(fixed, jnp.float32)
    if scaling is not None and scaling.by_length and lengths is not None:
        freqs = _frequencies_by_length(lengths, rotary_dim, theta, scaling)[:, None, None]
    angles = positions[..., None, None].astype(jnp.float32) * freqs
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def _frequencies_by_length(
    lengths: Int[Array, " B"], rotary_dim: int, theta: float, scaling: RopeScaling
) -> Float[Array, "B R"]:
    """The frequencies of rows of these lengths."""
    original = scaling.original_max_len
    if scaling.kind == "longrope":
        short, long = (
            jnp.asarray(rope_frequencies(rotary_dim, theta, scaling, is_long=x)[0], jnp.float32)
            for x in (False, True)
        )
        return jnp.where(lengths[:, None] > original, long, short)
    # the base grows so that the slowest frequency is divided by this much (2309.00071, section 3.3)
    longest = jnp.maximum(lengths, original).astype(jnp.float32)
    growth = scaling.factor * longest / original - (scaling.factor - 1)
    base = theta * growth ** (rotary_dim / max(rotary_dim - 2, 1))
    return base[:, None] ** (-np.arange(0, rotary_dim, 2, dtype=np.float32) / rotary_dim)


def rope(
    x: Float[Array, "B T N H"],
    tables: tuple[Float[Array, "B T 1 R"], Float[Array, "B T 1 R"]],
    *,
    pairs: Literal["halves", "neighbours"] = "halves",
) -> Float[Array, "B T N H"]:
    """Rotates the first 2R dims of each head by its position.

    Pairs are (i, i + R), as in Llama's public weights, or `neighbours`, (2i, 2i + 1), as in the paper and GPT-J.
    """
    if target.platform() == "tpu":
        return tpu.rope(x, tables, pairs)
    cos, sin = tables
    half = cos.shape[-1]
    if pairs == "neighbours":
        turned, rest = jnp.split(x.astype(jnp.float32), [2 * half], axis=-1)
        first, second = turned[..., ::2], turned[..., 1::2]
        both = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
        turned = both.reshape(turned.shape)
        return jnp.concatenate([turned, rest], axis=-1).astype(x.dtype)
    first, second, rest = jnp.split(x.astype(jnp.float32), [half, 2 * half], axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin, rest]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def sinusoidal(
    positions: Int[Array, "B T"], dim: int, *, inclusive: bool = False
) -> Float[Array, "B T D"]:
    """Sines in the first half of the dims and cosines in the second (Vaswani et al. 2017, 1706.03762, section 3.5).

    The lowest frequency is above 1 / 10000 in the paper; with `inclusive` it is 1 / 10000, as in tensor2tensor.
    """
    count = -(-dim // 2)
    steps = max(count - 1, 1) if inclusive else dim / 2
    freqs = 10_000.0 ** (-np.arange(count, dtype=np.float64) / steps)
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(freqs, jnp.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)[..., :dim]


def relative_buckets(
    distance: np.ndarray, buckets: int, *, causal: bool, max_distance: int
) -> np.ndarray:
    """The bucket of each distance (position of the key minus position of the query), in 0 ... buckets - 1.

    Half of the buckets are for one distance each, the others for ranges that grow logarithmically up to `max_distance`;
    without `causal`, half of all buckets are for later keys (T5, Raffel et al. 2020, 1910.10683, section 2.1).
    """
    first = np.zeros_like(distance)
    if causal:
        distance = np.maximum(-distance, 0)
    else:
        buckets //= 2
        first = np.where(distance > 0, buckets, 0)
        distance = np.abs(distance)
    exact = buckets // 2
    growth = np.log(np.maximum(distance, 1) / exact) / math.log(max_distance / exact)
    # float32 as in T5's own code, so that a distance at a boundary falls into the same bucket
    far = exact + (growth.astype(np.float32) * (buckets - exact)).astype(distance.dtype)
    return first + np.where(distance < exact, distance, np.minimum(far, buckets - 1))


def bucket_of_distance(buckets: int, *, causal: bool, max_distance: int) -> np.ndarray:
    """The bucket of each distance -max_distance ... max_distance."""
    distances = np.arange(-max_distance, max_distance + 1)
    return relative_buckets(distances, buckets, causal=causal, max_distance=max_distance)


def relative_bias(
    table: Float[Array, "buckets N"],
    distance: Int[Array, "B T S"],
    *,
    causal: bool,
    max_distance: int,
) -> Float[Array, "B N T S"]:
    """T5's bias on the scores by distance, the position of the key minus that of the query."""
    bucket = bucket_of_distance(table.shape[0], causal=causal, max_distance=max_distance)
    by_distance = table[bucket]
    index = jnp.clip(distance, -max_distance, max_distance) + max_distance
    return jnp.moveaxis(by_distance[index], -1, 1)


def disentangled_buckets(length: int, buckets: int, max_distance: int) -> np.ndarray:
    """DeBERTa's bucket of each distance, position of the query minus that of the key, length - 1 ... 1 - length.

    A quarter of the buckets on each side are for one distance each, the others for ranges that grow logarithmically up
    to `max_distance` (version 2 of 2006.03654's code); all are for one distance if there are 2 x `max_distance`.
    """
    distance, half = np.arange(length - 1, -length, -1), buckets // 2
    if half < max_distance:
        exact = half // 2
        far = np.maximum(np.abs(distance), exact).astype(np.float32) / np.float32(exact)
        # float32 as in DeBERTa's own code, so that a distance at a boundary falls into the same bucket
        growth = np.log(far) / np.log(np.float32((max_distance - 1) / exact))
        log = np.ceil(growth * np.float32(exact - 1)).astype(np.int64) + exact
        distance = np.where(np.abs(distance) <= exact, distance, np.sign(distance) * log)
    return np.clip(distance + half, 0, buckets - 1)


def by_distance(
    x: Float[Array, "B T N H"], vectors: Float[Array, "2T-1 N H"]
) -> Float[Array, "B N T T"]:
    """Products of x at t with the vector of the distance from t to s, for all t and s, in float32.

    `vectors` are those of the distances t - s = T - 1 ... 1 - T. All products are computed and each row is shifted, as
    in Music Transformer (Huang et al. 2018, 1809.04281, section 3.4.1): a gather would have a slow gradient.
    """
    length = x.shape[1]
    products = jnp.einsum("BTNH,CNH->BNTC", x, vectors, preferred_element_type=jnp.float32)
    flat = jnp.pad(products, ((0, 0), (0, 0), (0, 0), (0, 1)))
    flat = flat.reshape(*products.shape[:2], length * 2 * length)[..., length - 1 : -1]
    return flat.reshape(*products.shape[:2], length, 2 * length - 1)[..., :length]


def alibi_slopes(heads: int) -> np.ndarray:
    """The slope of each head: a geometric sequence, and every second of the next one if N is no power of two.

    Press et al. 2021 (2108.12409, section 3), and their code for other numbers of heads.
    """
    whole = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * i / whole) for i in range(1, whole + 1)]
    slopes += [2 ** (-4 * i / whole) for i in range(1, 2 * (heads - whole), 2)]
    return np.array(slopes)


def alibi_bias(
    key_positions: Int[Array, "B S"],
    heads: int,
    *,
    scale: float = 1.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Float[Array, "B N 1 S"]:
    """The bias of each key: slope times position, in float32; `dtype` is that to which slopes and products are rounded.

    A softmax over the keys does not change when the query's position is subtracted.
    """
    # not by casts, which XLA leaves out within one program
    bits = jnp.finfo(dtype)
    rounded = lambda x: jax.lax.reduce_precision(x.astype(jnp.float32), bits.nexp, bits.nmant)
    slopes = rounded(jnp.asarray(alibi_slopes(heads), jnp.float32))
    return rounded(slopes[:, None, None] * rounded(key_positions[:, None, None])) * scale
