"""The mixture of experts as a module: a router and several MLPs, in place of one MLP."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxlm.config import ComputeConfig, TransformerConfig
from jaxlm.nn.layers import MLP, activate, kernel, residual_std
from jaxlm.ops import moe
from jaxlm.ops.linear import linear, merged


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
        rows = x.reshape(-1, c.dim)
        bias = self._bias("router_bias", c.num_experts) if "router" in c.biases else None
        logits = moe.router_logits(rows, router, bias)
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
        y = moe.mix(rows, weights, experts, gate, up, down, activation, biases=biases)
        if c.shared_expert_dim is not None:
            y = y + self._shared(rows)
        real = None if real is None else real.reshape(-1)
        # losses are sums, which `training.step` divides by their weight
        weight = moe.added_weight(len(rows), real)
        loss = c.router_balance * weight * moe.load_balance(logits, experts, real)
        return moe.with_loss(y, loss).reshape(x.shape)

    def _bias(self, name: str, *shape: int) -> Array:
        return self.param(name, nn.initializers.zeros, shape, jnp.float32)

    def _shared(self, rows: Float[Array, "M D"]) -> Float[Array, "M D"]:
        """The expert of all tokens times its gate, within `__call__`."""
        c = self.config
        assert c.shared_expert_dim is not None
        config = c.without_experts(c.shared_expert_dim)
        gate = self.param(
            "shared_weight", nn.initializers.normal(c.init_std), (c.dim, 1), jnp.float32
        )
        y = MLP(config, self.compute, name="shared")(rows[None])[0]
        return jax.nn.sigmoid(linear(rows, gate)) * y
