"""Scaled dot-product attention with one signature and three implementations that give the same result.

Letters: B batch, T query positions, S key positions, N query heads, K key/value heads, G query heads per key head,
H head width.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.ops import masks

Implementation = Literal["auto", "xla", "cudnn", "splash"]

# Fewest queries that plain causal attention works on at a time: smaller products are slower than what they save.
MIN_BLOCK = 32


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: masks.Mask,
    *,
    bias: Float[Array, "B N T S"] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, "B T N H"]:
    """Mixes values by the softmax of query-key products (Vaswani et al. 2017, 1706.03762, equation 1).

    Args:
        q: queries; N is a multiple of K, query head n uses key head n // (N / K) (Ainslie et al. 2023, 2305.13245).
        k: keys.
        v: values.
        mask: who may attend to whom.
        bias: added to the scores before the mask.
        scale: factor on the scores; 1 / sqrt(H) if not given.
        softcap: scores become softcap * tanh(scores / softcap) before bias and mask.
        dropout: share of the probabilities set to zero where `key` is given.
        key: random key for the dropout.
        implementation: `auto` takes the fastest that can do what is asked on this backend.

    Raises:
        ValueError: the implementation that was asked for by name cannot do this.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dropout = dropout if key is not None else 0.0
    wanted = resolve(implementation)
    reason = _unsupported(wanted, q, k, mask, bias, softcap, dropout)
    if reason and implementation != "auto":
        raise ValueError(f"compute.attention={implementation} cannot do {reason}; use auto or xla")
    if wanted == "splash" and not reason:
        return _splash(q, k, v, mask, scale=scale, softcap=softcap)
    if wanted == "cudnn" and not reason:
        return _cudnn(q, k, v, mask, bias=bias, scale=scale)
    return _xla(q, k, v, mask, bias=bias, scale=scale, softcap=softcap, dropout=dropout, key=key)


def resolve(implementation: Implementation) -> Implementation:
    """The implementation that `auto` means on this backend."""
    if implementation != "auto":
        return implementation
    fastest: dict[str, Implementation] = {"tpu": "splash", "gpu": "cudnn"}
    return fastest.get(jax.default_backend(), "xla")


def _unsupported(implementation, q, k, mask, bias, softcap, dropout) -> str | None:
    """What is asked for that the implementation lacks."""
    if implementation == "xla":
        return None
    if dropout:
        return "dropout of attention probabilities"
    if implementation == "cudnn":
        if softcap is not None:
            return "a soft cap on scores"
        if q.dtype not in (jnp.bfloat16, jnp.float16):
            return f"{q.dtype} (it needs bfloat16 or float16)"
        if q.shape[-1] % 8 or q.shape[-1] > 128:
            return f"heads of width {q.shape[-1]} (it needs a multiple of 8 up to 128)"
        if (q.shape[1] % 2 or k.shape[1] % 2) and not (bias is None and _is_plain(mask)):
            return f"lengths {q.shape[1]} and {k.shape[1]} with a mask or bias (they must be even)"
        return None
    if bias is not None:
        return "a bias on the scores"
    if mask.dense is not None or mask.q_positions is not None:
        return "a mask given as a matrix or a key cache"
    if mask.kv_prefix is not None:
        return "a prefix that is seen from everywhere"
    if q.shape[1] % 128 or k.shape[1] % 128:
        return f"lengths {q.shape[1]} and {k.shape[1]} that are not multiples of 128"
    mesh = jax.sharding.get_abstract_mesh()
    shards = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    if q.shape[0] % shards:
        return f"a batch of {q.shape[0]} that the {shards} batch shards of the mesh do not divide"
    return None


def _xla(q, k, v, mask, *, bias, scale, softcap, dropout, key):
    """Plain products; where no query sees a later key, in blocks of queries with the keys up to the block's end."""
    length, kv_len = q.shape[1], k.shape[1]
    allowed = masks.matrix(mask, length, kv_len)
    run = functools.partial(_products, softcap=softcap, dropout=dropout)
    blocks = _causal_blocks(mask, length, kv_len)
    # heads first before the cut, so that the gradients of the blocks are added up before they are turned back
    q, k, v = (x.swapaxes(1, 2) for x in (q * scale, k, v))
    if blocks == 1:
        return run(q, k, v, allowed, bias, key).swapaxes(1, 2)
    parts = []
    for i in range(blocks):
        here, seen = (slice(j * length // blocks, (i + 1) * length // blocks) for j in (i, 0))
        parts.append(
            run(
                q[:, :, here],
                k[:, :, seen],
                v[:, :, seen],
                allowed[:, :, here, seen],
                None if bias is None else bias[:, :, here, seen],
                None if key is None else jax.random.fold_in(key, i),
            )
        )
    return jnp.concatenate(parts, axis=2).swapaxes(1, 2)


def _causal_blocks(mask: masks.Mask, length: int, kv_len: int) -> int:
    """Into how many blocks the queries are cut; n of them save (n - 1) / 2n of the work."""
    is_causal = mask.causal and mask.q_positions is None and mask.kv_prefix is None
    if not is_causal or length != kv_len or length < 2 * MIN_BLOCK:
        return 1
    return min(length // MIN_BLOCK, 4)


def _products(q, k, v, allowed, bias, key, *, softcap, dropout):
    """q [B, N, T, H], k and v [B, K, S, H] -> [B, N, T, H].

    In between the G query heads of a key head lie end to end, in R = G x T rows.
    """
    heads, kv_heads = q.shape[1], k.shape[1]
    scores = _scores(q.reshape(q.shape[0], kv_heads, -1, q.shape[3]), k)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        bias = jnp.broadcast_to(bias, (bias.shape[0], heads, *bias.shape[2:]))
        scores = scores + bias.astype(jnp.float32).reshape(-1, *scores.shape[1:])
    if allowed is not None:
        scores = scores + jnp.tile(masks.additive(allowed), (1, 1, heads // kv_heads, 1))
    factors = None
    if dropout:
        factors = jax.random.bernoulli(key, 1 - dropout, scores.shape) / (1 - dropout)
    return _mix(scores, v, factors).reshape(*q.shape[:3], v.shape[3])


@jax.custom_vjp
def _scores(q, k):
    """Products of all queries and keys, in float32: [B, K, R, S]."""
    return jnp.einsum("BKRH,BKSH->BKRS", q, k, preferred_element_type=jnp.float32)


def _scores_backward(saved, d_scores):
    q, k = saved
    d_q = jnp.einsum("BKRS,BKSH->BKRH", d_scores, k, preferred_element_type=jnp.float32)
    return d_q.astype(q.dtype), _summed_over_queries(q, d_scores).astype(k.dtype)


_scores.defvjp(lambda q, k: (_scores(q, k), (q, k)), _scores_backward)


def _summed_over_queries(x, weights):
    """[B, K, R, H] and [B, K, R, S] -> [B, K, S, H], in the order that XLA for CPUs is fastest at, by up to a third."""
    sums = jnp.einsum("BKRH,BKRS->BKHS", x, weights, preferred_element_type=jnp.float32)
    return sums.swapaxes(2, 3)


@jax.custom_vjp
def _mix(scores, v, factors):
    """Softmax of the scores, times `factors` if given, times the values: [B, K, R, H].

    The division by the softmax's sum comes after the product, and the gradient is written by hand: that saves passes
    over the [B, K, R, S] scores, which on a CPU cost more than the products.
    """
    return _mix_forward(scores, v, factors)[0]


def _mix_forward(scores, v, factors):
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    total = weights.sum(-1, keepdims=True)
    weights = weights.astype(v.dtype)
    dropped = weights if factors is None else (weights * factors).astype(v.dtype)
    out = jnp.einsum("BKRS,BKSH->BKRH", dropped, v, preferred_element_type=jnp.float32) / total
    out = out.astype(v.dtype)
    return out, (weights, total, v, factors, out)


def _mix_backward(saved, d_out):
    weights, total, v, factors, out = saved
    d_out = d_out.astype(jnp.float32) / total
    shared = (d_out * out).sum(-1, keepdims=True)
    d_out = d_out.astype(v.dtype)
    dropped = weights if factors is None else (weights * factors).astype(v.dtype)
    d_v = _summed_over_queries(d_out, dropped)
    d_weights = jnp.einsum("BKRH,BKSH->BKRS", d_out, v, preferred_element_type=jnp.float32)
    if factors is not None:
        d_weights = d_weights * factors
    return weights * (d_weights - shared), d_v.astype(v.dtype), None


_mix.defvjp(_mix_forward, _mix_backward)


def _cudnn(q, k, v, mask, *, bias, scale):
    """cuDNN's fused attention through `jax.nn.dot_product_attention`."""
    allowed, causal, window = None, mask.causal, None
    if _is_plain(mask):
        window = None if mask.window is None else (mask.window - 1, 0)
    else:
        allowed, causal = masks.matrix(mask, q.shape[1], k.shape[1]), False
    bias = None if bias is None else bias.astype(q.dtype)
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        bias=bias,
        mask=allowed,
        scale=scale,
        is_causal=causal,
        local_window_size=window,
        implementation="cudnn",
    )


def _is_plain(mask: masks.Mask) -> bool:
    """Whether cuDNN needs no matrix: everything is allowed, or all earlier keys, or those of a causal window."""
    given = (mask.dense, mask.q_positions, mask.q_segment_ids, mask.kv_prefix)
    return all(x is None for x in given) and (mask.causal or mask.window is None)


def _splash(q, k, v, mask, *, scale, softcap):
    """The Pallas kernel for TPUs; segments and windows are passed as rules, so that whole blocks are skipped.

    The kernel is not known to XLA's partitioner: it runs under `shard_map`, batch and heads split as
    `sharding.RULES` has it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kernel = functools.partial(
        _splash_local, causal=mask.causal, window=mask.window, softcap=softcap
    )
    q, k, v = (x.swapaxes(1, 2) for x in (q * scale, k, v))
    segments = (mask.q_segment_ids, mask.kv_segment_ids)
    if mesh.empty:
        return kernel(q, k, v, *segments).swapaxes(1, 2)
    batch, heads = jax.P(("data", "fsdp")), jax.P(("data", "fsdp"), "tensor")
    run = jax.shard_map(
        kernel, in_specs=(heads, heads, heads, batch, batch), out_specs=heads, check_vma=False
    )
    return run(q, k, v, *segments).swapaxes(1, 2)


def _splash_local(q, k, v, q_segment_ids, kv_segment_ids, *, causal, window, softcap):
    """The kernel on one device's share: q [B, N, T, H], k and v [B, K, S, H]."""
    # imported here: the package is for TPUs and takes a second to load
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as rules

    shape = (q.shape[2], k.shape[2])
    if window is not None:
        rule = rules.LocalMask(shape, (window - 1, 0 if causal else window - 1), offset=0)
    else:
        rule = rules.CausalMask(shape) if causal else rules.FullMask(shape)
    block_q, block_kv = (max(b for b in (512, 256, 128) if size % b == 0) for size in shape)
    kernel = splash.make_splash_mha(
        rules.MultiHeadMask([rule] * q.shape[1]),
        block_sizes=splash.BlockSizes(
            block_q=block_q,
            block_kv=block_kv,
            block_kv_compute=block_kv,
            block_q_dkv=block_q,
            block_kv_dkv=block_kv,
            block_kv_dkv_compute=block_kv,
            block_q_dq=block_q,
            block_kv_dq=block_kv,
        ),
        attn_logits_soft_cap=softcap,
        head_shards=1,
        q_seq_shards=1,
        interpret=_interpret(),
    )
    if q_segment_ids is None:
        return jax.vmap(lambda q, k, v: kernel(q, k, v))(q, k, v)
    segments = splash.SegmentIds(q=q_segment_ids, kv=kv_segment_ids)
    return jax.vmap(lambda q, k, v, s: kernel(q, k, v, segment_ids=s))(q, k, v, segments)


# Set by tests that compile for a TPU on a machine that has none.
COMPILING_FOR_TPU = False


def _interpret() -> bool:
    """Whether Pallas must be emulated, because this backend is not a TPU."""
    return jax.default_backend() != "tpu" and not COMPILING_FOR_TPU


def reference(q, k, v, allowed: np.ndarray, *, scale, softcap=None) -> np.ndarray:
    """Attention of one head in plain NumPy, float64: q [T, H], k and v [S, H], allowed [T, S]. For tests."""
    scores = np.asarray(q, np.float64) @ np.asarray(k, np.float64).T * scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    scores = np.where(allowed, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ np.asarray(v, np.float64)
