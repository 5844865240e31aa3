"""Position encodings: rotary (with scaling for long contexts), sinusoidal, and relative by buckets of distance.

Letters: B batch, T query positions, S key positions, D model width, N heads.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config import RopeScaling


def rope_frequencies(
    rotary_dim: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[np.ndarray, float]:
    """Angle per position of each rotated pair [rotary_dim / 2], and the factor on cos and sin (1 except for yarn).

    Su et al. 2021 (2104.09864, section 3.2.2); scalings as named in `RopeScaling`.
    """
    freqs = theta ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)
    if scaling is None:
        return freqs, 1.0
    if scaling.kind == "linear":
        return freqs / scaling.factor, 1.0
    rotations = scaling.original_max_len * freqs / (2 * math.pi)
    if scaling.kind == "llama3":
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        keep = np.clip((rotations - low) / (high - low), 0, 1)
        return keep * freqs + (1 - keep) * freqs / scaling.factor, 1.0

    def pair_with(rotations: float) -> float:
        """Index of the pair that completes this many rotations over the original length."""
        length = scaling.original_max_len / (rotations * 2 * math.pi)
        return rotary_dim * math.log(length) / (2 * math.log(theta))

    low = max(math.floor(pair_with(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_with(scaling.beta_slow)), rotary_dim - 1)
    ramp = (np.arange(rotary_dim // 2) - low) / max(high - low, 1e-3)
    keep = 1 - np.clip(ramp, 0, 1)
    freqs = keep * freqs + (1 - keep) * freqs / scaling.factor
    return freqs, 0.1 * math.log(scaling.factor) + 1.0


def rope_tables(
    positions: Int[Array, "B T"],
    rotary_dim: int,
    theta: float,
    scaling: RopeScaling | None = None,
) -> tuple[Float[Array, "B T 1 R"], Float[Array, "B T 1 R"]]:
    """Cosines and sines for `rope`, float32, R = rotary_dim / 2; computed once for all layers."""
    freqs, factor = rope_frequencies(rotary_dim, theta, scaling)
    angles = positions[..., None, None].astype(jnp.float32) * jnp.asarray(freqs, jnp.float32)
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def rope(
    x: Float[Array, "B T N H"], tables: tuple[Float[Array, "B T 1 R"], Float[Array, "B T 1 R"]]
) -> Float[Array, "B T N H"]:
    """Rotates the first 2R dims of each head by its position; pairs are (i, i + R), as in Llama's public weights."""
    cos, sin = tables
    half = cos.shape[-1]
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
