"""Rematerialization: which results of a block are kept for the backward pass; it computes the others again.

Results are kept by name: those of the products with a block's weights (`PRODUCTS`), and of attention by a fused kernel
the output and the logarithms of its sums (`ops.splash.RESIDUALS`), without which the kernel's forward pass would run
twice. The names of policies are MaxText's and JAX's where they have one.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name as named

from jaxlm.ops.splash import RESIDUALS

__all__ = ["POLICIES", "PRODUCTS", "named"]

PRODUCTS = ("query", "key", "value", "out", "gate", "up", "down")


def _with_cudnn(policy: Callable) -> Callable:
    """Keeps the results of cuDNN's attention too, which JAX gives no names."""

    def own(primitive, *avals, **params):
        is_attention = primitive.name.startswith("dot_product_attention_fwd")
        return is_attention or policy(primitive, *avals, **params)

    return own


_jax = jax.checkpoint_policies

# by the values of `compute.remat`
POLICIES: dict[str, Callable] = {
    "minimal": _with_cudnn(_jax.save_only_these_names(*PRODUCTS, RESIDUALS)),
    "dots": _jax.dots_with_no_batch_dims_saveable,
    "offload": _with_cudnn(
        _jax.save_and_offload_only_these_names(
            names_which_can_be_saved=[RESIDUALS],
            names_which_can_be_offloaded=list(PRODUCTS),
            offload_src="device",
            offload_dst="pinned_host",
        )
    ),
    "attention": _with_cudnn(_jax.save_only_these_names(RESIDUALS)),
    "full": _jax.nothing_saveable,
}
