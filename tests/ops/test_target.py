"""The choice of the target platform; CPU-specific code must not get into programs for other platforms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from styles import F32, STYLES, language_model, random_params

from jaxlm import sharding
from jaxlm.config import MeshConfig
from jaxlm.models.heads import unembedding, unembedding_bias
from jaxlm.ops import target
from jaxlm.ops.losses import token_cross_entropy

TPU = AbstractMesh(
    (4, 1, 1, 1, 1),
    sharding.AXES,
    axis_types=(AxisType.Auto,) * 5,
    abstract_device=AbstractDevice(device_kind="TPU v5p", num_cores=1, platform="tpu"),
)


def test_the_platform_is_that_of_the_mesh_or_the_default_backend(monkeypatch):
    assert target.platform() == "cpu"
    with jax.sharding.use_abstract_mesh(TPU):
        assert target.platform() == "tpu"
        assert (
            jax.jit(lambda x: x if target.platform() == "tpu" else -x).trace(1.0).jaxpr.eqns == []
        )
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert target.platform() == "gpu"
    with jax.set_mesh(sharding.make_mesh(MeshConfig())):
        assert target.platform() == "cpu"
    with jax.default_device(jax.devices("cpu")[0]):
        assert target.platform() == "cpu"


def test_compile_for_overrides_the_mesh():
    with jax.set_mesh(sharding.make_mesh(MeshConfig())), target.compile_for("gpu"):
        assert target.platform() == "gpu"
    with pytest.raises(ValueError, match="platform='cuda' is unknown; use one of cpu, gpu, tpu"):
        target.compile_for("cuda")


def test_a_jitted_function_is_not_reused_for_another_platform():
    @jax.jit
    def f(x):
        return x + {"cpu": 1, "gpu": 2, "tpu": 3}[target.platform()] + 10 * target.uses_cpu_ops()

    assert f(0) == 11
    with target.compile_for("tpu"):
        assert f(0) == 3
    with target.plain_formulas():
        assert f(0) == 1
    assert f(0) == 11


TINY = dict(vocab_size=12, dim=4, num_layers=1, num_heads=2, max_len=6, mlp_dim=4)
TOKENS = np.random.default_rng(0).integers(1, 12, (2, 6))


def tiny_loss(name):
    """The mean loss of a language model, and its parameters."""
    kv_heads = dict(num_kv_heads=1) if name == "gemma" else {}
    config = dataclasses.replace(STYLES[name], **TINY | kv_heads | dict(head_dim=2))
    model = language_model(config, F32)
    params = random_params(model)

    def loss(params):
        hidden = model.apply({"params": params}, TOKENS, method="hidden")
        options = dict(
            bias=unembedding_bias(params), softcap=getattr(config, "logit_softcap", None)
        )
        ones = np.ones(TOKENS.shape, np.float32)
        sums = token_cross_entropy(hidden, unembedding(params), TOKENS, ones, **options)
        return sums.loss / TOKENS.size

    return loss, params


MODELS = ["gemma", "bert"]


@pytest.mark.parametrize("name", MODELS)
def test_cpu_barriers_and_host_calls_are_absent_on_other_platforms(name):
    loss, params = tiny_loss(name)
    step = jax.jit(jax.value_and_grad(loss))
    assert "optimization_barrier" in step.lower(params).as_text()
    for platform, lowered_for in (("tpu", "tpu"), ("gpu", "cuda")):
        with target.compile_for(platform):
            # on CPUs the lowering would be the same
            for lowering in (
                step.trace(params).lower(lowering_platforms=(lowered_for,)),
                step.lower(params),
            ):
                text = lowering.as_text()
                assert "dot_general" in text
                assert "optimization_barrier" not in text
                assert "custom_call" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_every_derivative_with_plain_formulas(name):
    loss, params = tiny_loss(name)
    flat, unravel = ravel_pytree(params)
    f = lambda flat: loss(unravel(flat))
    direction = np.random.default_rng(1).normal(size=flat.shape).astype(np.float32)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(f, (flat,), (direction,))
    tuned = jax.jit(jax.grad(f))(flat)
    with target.plain_formulas():
        gradient, product = jax.jit(lambda x: jax.jvp(jax.grad(f), (x,), (direction,)))(flat)
        forward = jax.jit(lambda x: jax.jvp(f, (x,), (direction,))[1])(flat)
        reverse = jax.jit(jax.grad(lambda x: jax.grad(f)(x) @ direction))(flat)
        # slow to compile, so of one model
        hessian = jax.jit(jax.hessian(f))(flat) if name == "bert" else None
    # both are sums in float32, of terms as large as the largest gradient
    np.testing.assert_allclose(gradient, tuned, atol=1e-5 * float(jnp.abs(tuned).max()))
    np.testing.assert_allclose(forward, gradient @ direction, rtol=1e-5)
    scale = float(jnp.abs(product).max())
    np.testing.assert_allclose(product, reverse, atol=1e-5 * scale)
    if hessian is not None:
        np.testing.assert_allclose(hessian @ direction, product, atol=1e-5 * scale)
