"""Layers without attention: norm, embedding, MLP, linear layer and dropout."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, TransformerConfig
from jaxlm.nn.remat import named
from jaxlm.nn.tap import Tap, passed
from jaxlm.ops import norms, quantized, target
from jaxlm.ops.activations import ACTIVATIONS, clamped_swiglu
from jaxlm.ops.linear import LowRank, linear
from jaxlm.params import ADAPTER, PARAMS
from jaxlm.sharding import constrain, shards


def compute_dtype(compute: ComputeConfig) -> jnp.dtype:
    """The dtype of activations; `auto` is bfloat16 on accelerators and float32 on a CPU."""
    if compute.dtype == "auto":
        return jnp.dtype(jnp.float32 if target.platform() == "cpu" else jnp.bfloat16)
    return jnp.dtype(compute.dtype)


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Sets a fraction `rate` of `x` to zero and scales the rest (Srivastava et al. 2014); returns `x` without a key."""
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


def between_layers(x: Float[Array, "B T D"], compute: ComputeConfig) -> Float[Array, "B T D"]:
    """Constrains the sharding of the residual stream."""
    return constrain(x, "batch", "residual_seq" if compute.sequence_parallel else "seq", None)


def split_key(key: Array | None, count: int) -> list[Array] | list[None]:
    """Splits a key into `count` keys; without a key (deterministic), `count` times None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def kernel(
    module: nn.Module, name: str, init: Callable[..., Array], shape: tuple[int, ...]
) -> Array | LowRank:
    """A float32 parameter of the module, with its adapter if there is one (`models.lora`)."""
    own = module.param(name, init, shape, jnp.float32)
    if not module.is_initializing():
        # its gradient has the sharding of the parameter; else XLA may sum it whole on all devices and cut it afterwards
        own = constrain(own, *PARAMS[name].dims)
    if not module.has_variable("params", f"{name}{ADAPTER}a"):
        return own
    return with_adapter(module.variables["params"], name)


def with_adapter(params: Mapping[str, Any], name: str) -> Array | LowRank:
    """A parameter in a dict of a module's parameters, with its adapter if there is one."""
    if f"{name}{ADAPTER}a" not in params:
        return params[name]
    return LowRank(params[name], *(params[f"{name}{ADAPTER}{x}"] for x in ("a", "b", "scale")))


class Norm(nn.Module):
    """Normalizes the last dim, with the norm set in the config."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalises in float32 and returns the dtype of `x`."""
        c, dim = self.config, x.shape[-1]
        if c.norm == "rms_norm_plus_one":
            scale = 1.0 + self.param("scale", nn.initializers.zeros, (dim,), jnp.float32)
        else:
            scale = self.param("scale", nn.initializers.ones, (dim,), jnp.float32)
        if c.norm != "layer_norm":
            return norms.rms_norm(x, scale, eps=c.norm_eps)
        bias = (
            self.param("bias", nn.initializers.zeros, (dim,), jnp.float32)
            if "norm" in c.biases
            else None
        )
        return norms.layer_norm(x, scale, bias, eps=c.norm_eps)


class HeadNorm(nn.Module):
    """Normalizes each head with a scale of its own and without a bias, with the norm set in the config."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "... N H"]) -> Float[Array, "... N H"]:
        """Normalises in float32 and returns the dtype of `x`."""
        c, shape = self.config, x.shape[-2:]
        if c.norm == "rms_norm_plus_one":
            scale = 1.0 + self.param("head_scale", nn.initializers.zeros, shape, jnp.float32)
        else:
            scale = self.param("head_scale", nn.initializers.ones, shape, jnp.float32)
        norm = norms.layer_norm if c.norm == "layer_norm" else norms.rms_norm
        y = norm(x.astype(jnp.float32), jnp.ones(shape[1:], jnp.float32), eps=c.norm_eps)
        return (y * scale).astype(x.dtype)


class Embed(nn.Module):
    """The token embedding table, also used for the output logits if tied."""

    config: TransformerConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T E"]:
        """Embeddings of the tokens, in the compute dtype."""
        c = self.config
        assert c.vocab_size is not None, "vocab_size must be set before a model is built"
        init, shape = nn.initializers.normal(c.init_std), (c.vocab_size, c.embedding_width)
        table = kernel(self, "embedding", init, shape)
        return look_up(table, tokens, c, self.compute)


def look_up(
    table: Float[Array, "V E"] | LowRank,
    tokens: Int[Array, "B T"],
    config: TransformerConfig,
    compute: ComputeConfig,
) -> Float[Array, "B T E"]:
    """The tokens' rows of the table, in the compute dtype."""
    dtype = compute_dtype(compute)
    if isinstance(table, LowRank):
        rows = table.a[tokens] @ table.b * table.scale
        x = (constrain(table.kernel, "vocab", None)[tokens] + rows).astype(dtype)
        return _scaled(x, config)
    if not _by_width(table.shape, tokens.shape):
        # gather whole rows before the look-up, as for every other parameter; otherwise XLA replicates the activations
        return _scaled(constrain(table, "vocab", None)[tokens].astype(dtype), config)
    # neither the table nor its gradient leaves its device: each one looks up its share of the width for the tokens of
    # all, and gets back the whole width of its own
    x = table[constrain(tokens, "replicas", None)].astype(dtype)
    x = constrain(constrain(x, "replicas", None, "embed"), "batch", "seq", None)
    return _scaled(x, config)


def _by_width(table: tuple[int, ...], tokens: tuple[int, ...]) -> bool:
    """Whether to look up shares of the width [V, E] for the tokens [B, T] of all devices, or whole rows for their own.

    The smaller array decides. TPUs pad the last dim of one to 128.
    """
    parts = shards("embed")
    if parts == 1 or tokens[0] % shards("batch") or table[1] % parts:
        return False
    count = math.prod(tokens) // shards("replicas")
    return count * max(table[1] // parts, 128) <= math.prod(table)


def _scaled(x: Array, config: TransformerConfig) -> Array:
    factor = config.dim**0.5 if config.scale_embeddings else config.embedding_scale
    return x if factor == 1 else x * jnp.asarray(factor, x.dtype)


def product(compute: ComputeConfig) -> Callable[..., Array]:
    """`ops.linear.linear`, or that with 8-bit operands, for the matrices of the blocks."""
    if compute.quantize == "none":
        return linear
    return functools.partial(quantized.linear, kind=compute.quantize)


class MLP(nn.Module):
    """The position-wise feed-forward layer (Vaswani et al. 2017, section 3.3), gated if the config sets it
    (Shazeer 2020, 2002.05202)."""

    config: TransformerConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], *, tap: Tap | None = None
    ) -> Float[Array, "B T D"]:
        """down(activation(up(x))), or down(activation(gate(x)) * up(x))."""
        c = self.config
        gate = self._linear("gate", x, c.mlp_width) if c.is_gated else None
        h = passed(tap, "mlp_hidden", activate(c, gate, self._linear("up", x, c.mlp_width)))
        h = constrain(h, "batch", "seq", "mlp")
        return self._linear("down", h, c.dim, residual_std(c))

    def _linear(self, name: str, x: Array, features: int, std: float | None = None) -> Array:
        c = self.config
        init = nn.initializers.normal(c.init_std if std is None else std)
        weights = kernel(self, name, init, (x.shape[-1], features))
        bias = None
        if "mlp" in c.biases:
            bias = self.param(f"{name}_bias", nn.initializers.zeros, (features,), jnp.float32)
        return named(product(self.compute)(x, weights, bias), name)


def activate(config: TransformerConfig, gate: Array | None, up: Array) -> Array:
    """The hidden units of an MLP from its products with the input; `gate` is None if it has none."""
    function = ACTIVATIONS[config.activation_function]
    if gate is None:
        return function(up)
    if config.activation == "swiglu_clamped":
        return clamped_swiglu(gate, up, limit=config.swiglu_limit, gain=config.swiglu_gain)
    return function(gate) * up


class Dense(nn.Module):
    """A linear layer."""

    features: int
    std: float
    has_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
        """x W + b in the dtype of `x`."""
        init = nn.initializers.normal(self.std)
        kernel = self.param("kernel", init, (x.shape[-1], self.features), jnp.float32)
        if not self.has_bias:
            return linear(x, kernel)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return linear(x, kernel, bias)


def residual_std(config: TransformerConfig) -> float:
    """Initial standard deviation of the kernels whose output is added to the residual stream.

    A pre-norm stream is the sum of 2L outputs, so each kernel is scaled by 1 / sqrt(2L) (GPT-2, Radford et al. 2019,
    section 2.3).
    """
    if config.norm_place == "post":
        return config.init_std
    return config.init_std / (2 * config.num_layers) ** 0.5
