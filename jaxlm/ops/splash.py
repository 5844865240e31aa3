"""Splash attention, the Pallas kernel for TPUs that skips blocks without an allowed key, on any mesh.

It receives causality, windows and segments as rules. XLA cannot partition the kernel, so it runs under
`jax.shard_map`. Letters: B batch, T query positions, S key positions, N query heads, K key/value heads, H head width.
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Float

from jaxlm.ops import context, masks, target


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: masks.Mask,
    *,
    scale: float,
    softcap: float | None,
) -> Float[Array, "B T N H"]:
    """See `ops.attention.attend`, which checks that the arguments are supported."""
    mesh = jax.sharding.get_abstract_mesh()
    q, k, v = (x.swapaxes(1, 2) for x in (q * scale, k, v))
    segments = (mask.q_segment_ids, mask.kv_segment_ids)
    heads = q.shape[1] // mesh.shape.get(context.HEADS, 1)
    lengths, count = (q.shape[2], k.shape[2]), context.shards(q.shape[2])
    # the keys of a window are as many for early queries as for late ones
    is_balanced = (
        mask.causal and mask.window is None and count > 1 and not lengths[0] % (256 * count)
    )
    # of all devices, unless it is the same on all of them
    of_devices = count
    if not mask.causal and mask.window is None:
        lengths, of_devices = (lengths[0] // count, lengths[1]), 1
    kernel = _kernel(mask, heads, lengths, of_devices, is_balanced, softcap)
    if mesh.empty:
        return _by_row(kernel, q, k, v, *segments).swapaxes(1, 2)

    def run(kernel, q, k, v, q_segment_ids, kv_segment_ids):
        if count > 1:
            k, v = (jax.lax.all_gather(x, context.POSITIONS, axis=2, tiled=True) for x in (k, v))
        if is_balanced:
            q = context.balanced(q, 2)
            if q_segment_ids is not None:
                q_segment_ids = context.balanced(q_segment_ids, 1)
        out = _by_row(kernel, q, k, v, q_segment_ids, kv_segment_ids)
        return context.unbalanced(out, 2) if is_balanced else out

    split = jax.P(context.BATCH, context.HEADS, context.POSITIONS)
    of_kernel = jax.P(None, context.POSITIONS if of_devices > 1 else None)
    of_kernel = kernel.manual_sharding_spec(jax.NamedSharding(mesh, of_kernel))
    q_ids, kv_ids = jax.P(context.BATCH, context.POSITIONS), jax.P(context.BATCH)
    run = jax.shard_map(
        run,
        in_specs=(of_kernel, split, split, split, q_ids, kv_ids),
        out_specs=split,
        check_vma=False,
    )
    return run(kernel, q, k, v, *segments).swapaxes(1, 2)


def _kernel(
    mask: masks.Mask,
    heads: int,
    lengths: tuple[int, int],
    count: int,
    is_balanced: bool,
    softcap: float | None,
) -> Any:
    """The kernel for the heads of one device, with the blocks of the queries of `count` devices."""
    # imported here because it takes a second to load
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as rules

    if mask.window is not None:
        after = 0 if mask.causal else mask.window - 1
        rule: Any = rules.LocalMask(lengths, (mask.window - 1, after), offset=0)
    else:
        rule = rules.CausalMask(lengths) if mask.causal else rules.FullMask(lengths)
    if is_balanced:
        rule.q_sequence = context.balanced_order(lengths[0], count).astype("int32")
    # a block of queries that are consecutive
    sizes = (lengths[0] // (2 * count if is_balanced else count), lengths[1])
    block_q, block_kv = (max(b for b in (512, 256, 128) if size % b == 0) for size in sizes)
    return splash.make_splash_mha(
        rules.MultiHeadMask([rule] * heads),
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
        q_seq_shards=count,
        interpret=target.platform() != "tpu",  # emulated, for tests
    )


def _by_row(kernel, q, k, v, q_segment_ids, kv_segment_ids):
    """The kernel on one device: q [B, N, T, H], k and v [B, K, S, H]."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    if q_segment_ids is None:
        return jax.vmap(lambda q, k, v: kernel(q, k, v))(q, k, v)
    segments = splash.SegmentIds(q=q_segment_ids, kv=kv_segment_ids)
    return jax.vmap(lambda q, k, v, s: kernel(q, k, v, segment_ids=s))(q, k, v, segments)
