"""The mixture of experts as a module: a router and several MLPs, in place of one MLP."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxlm import sharding
from jaxlm.config import ComputeConfig, TransformerConfig
from jaxlm.nn.layers import MLP, activate, kernel, residual_std
from jaxlm.ops import moe
from jaxlm.ops.linear import linear, merged


def has_experts(config: Any) -> bool:
    """Whether a model with this config has experts, or one of its sides; `jax.vmap` has no rule for their products."""
    parts = (config, getattr(config, "encoder", None), getattr(config, "decoder", None))
    return any(getattr(part, "num_experts", None) is not None for part in parts)


class MoE(nn.Module):
    """Sends each token through the experts that the router selects (Shazeer et al. 2017, 1701.06538)."""

    config: TransformerConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        *,
        real: Bool[Array, "B T"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, "B T D"]:
        """The weighted sum of the selected experts; the gradient includes the load-balancing loss.

        Args:
            x: states of the tokens.
            real: which tokens are text and not padding, whose load is not balanced; None: all.
            key: for the noise of training; None: no noise.
        """
        c = self.config
        assert c.num_experts is not None
        init = nn.initializers.normal(c.init_std)
        shape = (c.num_experts, c.dim, c.mlp_width)
        router = self.param("router", init, (c.dim, c.num_experts), jnp.float32)
        gate = merged(kernel(self, "expert_gate", init, shape)) if c.is_gated else None
        up = merged(kernel(self, "expert_up", init, shape))
        init = nn.initializers.normal(residual_std(c))
        down = merged(kernel(self, "expert_down", init, (c.num_experts, c.mlp_width, c.dim)))
        if key is not None and c.router_jitter:
            low, high = 1 - c.router_jitter, 1 + c.router_jitter
            x = x * jax.random.uniform(key, x.shape, x.dtype, low, high)
        bias = self._bias("router_bias", c.num_experts) if "router" in c.biases else None
        logits = moe.router_logits(x, router, bias)
        weights, experts = moe.route(logits, c.experts_per_token, c.router_weights)
        biases = None
        if "mlp" in c.biases:
            width = (c.num_experts, c.mlp_width)
            biases = (
                self._bias("expert_gate_bias", *width) if c.is_gated else None,
                self._bias("expert_up_bias", *width),
                self._bias("expert_down_bias", c.num_experts, c.dim),
            )
        activation = functools.partial(activate, c)
        y = mix_on_mesh(x, weights, experts, gate, up, down, activation, biases)
        if c.shared_expert_dim is not None:
            y = y + self._shared(x)
        real = None if real is None else real.reshape(-1)
        logits, experts = (a.reshape(-1, a.shape[-1]) for a in (logits, experts))
        # losses are sums, which `training.step` divides by their weight
        weight = moe.added_weight(len(logits), real)
        return moe.with_loss(y, c.router_balance * weight * moe.load_balance(logits, experts, real))

    def _bias(self, name: str, *shape: int) -> Array:
        return self.param(name, nn.initializers.zeros, shape, jnp.float32)

    def _shared(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The expert of all tokens times its gate, within `__call__`."""
        c = self.config
        assert c.shared_expert_dim is not None
        config = c.without_experts(c.shared_expert_dim)
        gate = self.param(
            "shared_weight", nn.initializers.normal(c.init_std), (c.dim, 1), jnp.float32
        )
        y = MLP(config, self.compute, name="shared")(x)
        return jax.nn.sigmoid(linear(x, gate)) * y


def mix_on_mesh(
    x: Float[Array, "B T D"],
    weights: Float[Array, "B T C"],
    experts: Int[Array, "B T C"],
    gate: Float[Array, "E D F"] | None,
    up: Float[Array, "E D F"],
    down: Float[Array, "E F D"],
    activation: Callable[[Array | None, Array], Array],
    biases: tuple[Array | None, Array, Array] | None = None,
) -> Float[Array, "B T D"]:
    """`moe.mix` of the tokens of each device, which XLA would sort over all devices.

    Each device has E / expert of the experts. It gathers the tokens of its neighbours along `expert`, computes what its
    experts add to them, and gives each neighbour the sum for its own. No buffer can be too small for its tokens.
    """

    def mix(x, weights, experts, gate, up, down, biases, first=None):
        flat = (a.reshape(-1, a.shape[-1]) for a in (x, weights, experts))
        y = moe.mix(*flat, gate, up, down, activation, biases=biases, first=first)
        return y.reshape(x.shape)

    def mix_own(x, weights, experts, gate, up, down, biases):
        first = None
        if sharding.shards("experts") > 1:
            first = jax.lax.axis_index("expert") * up.shape[0]
            gather = functools.partial(jax.lax.all_gather, axis_name="expert", tiled=True)
            x, weights, experts = map(gather, (x, weights, experts))
        if biases is not None:
            # once in the sum over the parts of the MLP
            *others, last = biases
            biases = (*others, jnp.where(jax.lax.axis_index("tensor") == 0, last, 0))
        y = mix(x, weights, experts, gate, up, down, biases, first)
        if first is not None:
            y = jax.lax.psum_scatter(y, "expert", tiled=True)
        return jax.lax.psum(y, "tensor")

    mesh = sharding.current_mesh()
    arguments = (x, weights, experts, gate, up, down, biases)
    # rows that the mesh does not divide are those of one example: initialisation, explanations
    if mesh is None or mesh.size == 1 or len(x) % sharding.batch_shards():
        return mix(*arguments)
    is_split = x.shape[1] % sharding.shards("seq") == 0
    rows = sharding.spec("batch", "seq" if is_split else None, None)
    inner, outer = sharding.spec("experts", None, "mlp"), sharding.spec("experts", "mlp", None)
    of_biases = (sharding.spec("experts", "mlp"),) * 2 + (sharding.spec("experts", None),)
    run = jax.shard_map(
        mix_own,
        in_specs=(rows, rows, rows, inner, inner, outer, None if biases is None else of_biases),
        out_specs=rows,
        # kernels do not tell over which axes their results vary
        check_vma=False,
    )
    return run(*arguments)
