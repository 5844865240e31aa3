"""Looking into a forward pass: the observed model is the same model, for every kind of architecture."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import ENCODER_DECODERS, STYLES, language_model, random_params

from jaxlm.config import ComputeConfig, EncoderConfig, EncoderDecoderConfig
from jaxlm.models.heads import CausalLM, Classifier, MaskedLM, init_params
from jaxlm.models.observe import observe
from jaxlm.ops.attention import reference

TOKENS = jnp.array([[3, 5, 7, 2, 9, 4, 0, 0], [8, 1, 6, 3, 2, 2, 5, 1]])
SEGMENTS = jnp.array([[1, 1, 1, 1, 1, 1, 0, 0], [1] * 8])
INPUTS = {"segment_ids": SEGMENTS}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "gemma", "neox")]
SEVERAL = ("bert", "t5", *SLOW)


def make(name: str):
    """A small model of a style, its parameters, and its inputs."""
    model = language_model((STYLES | ENCODER_DECODERS)[name])
    args = (TOKENS, TOKENS[::-1]) if name in ENCODER_DECODERS else (TOKENS,)
    return model, random_params(model), args


def run(model, params, *args, **options):
    """`observe`, compiled."""
    arrays = {name: x for name, x in options.items() if name == "segment_ids"}
    rest = {name: x for name, x in options.items() if name not in arrays}
    return jax.jit(lambda p, args, inputs: observe(model, p, *args, **rest, **inputs))(
        params, args, arrays
    )


def places(model) -> tuple[str, ...]:
    """Names of places that every model has."""
    names = ("residual_before", "attention", "values", "heads", "mlp_hidden", "residual_after")
    if not isinstance(model.config, EncoderDecoderConfig):
        return names
    return (
        *(f"encoder.{x}" for x in names),
        *(f"decoder.{x}" for x in names),
        "decoder.cross_attention",
    )


@pytest.mark.parametrize("name", SEVERAL)
def test_without_capture_the_program_is_that_of_the_model(name):
    model, params, args = make(name)
    lower = lambda f: jax.jit(f).lower(params).as_text()
    plain = lower(lambda p: model.apply({"params": p}, *args, **INPUTS))
    assert lower(lambda p: observe(model, p, *args, capture=("logits",), **INPUTS)[0]) == plain
    assert lower(lambda p: observe(model, p, *args, capture=places(model), **INPUTS)[0]) != plain


@pytest.mark.parametrize("name", SEVERAL)
def test_the_observed_model_is_the_same_model(name):
    model, params, args = make(name)
    plain, _ = run(model, params, *args, **INPUTS)
    logits, seen = run(model, params, *args, capture=places(model), **INPUTS)
    # weights that are read come from the plain formula, which rounds in another order
    assert np.abs(logits - plain).max() <= 1e-6 * np.abs(plain).max()
    # batched = single, and padding changes nothing
    one = [x[:1, :6] for x in args]
    alone, own = run(model, params, *one, capture=places(model), segment_ids=SEGMENTS[:1, :6])
    np.testing.assert_allclose(alone[0], logits[0, :6], rtol=1e-5, atol=1e-5)
    for place in places(model):
        together = seen[place][:, 0]
        if place.endswith("attention"):
            np.testing.assert_allclose(together[:, :, :6, 6:], 0, atol=1e-7)
            together = together[:, :, :6, :6]
            np.testing.assert_allclose(own[place].sum(-1), 1, atol=1e-5)
        else:
            together = together[:, :6]
        np.testing.assert_allclose(own[place][:, 0], together, atol=1e-5)


def test_attention_is_that_of_one_head_computed_by_hand():
    config = EncoderConfig(vocab_size=10, dim=8, num_layers=1, num_heads=1, max_len=8)
    model = MaskedLM(config)
    params = random_params(model, seed=1)
    tokens = jnp.array([[1, 2, 3, 4]])
    capture = ("residual_before", "attention", "values", "heads")
    _, seen = run(model, params, tokens, capture=capture)
    attn = jax.tree.map(lambda x: np.asarray(x[0]), params["backbone"]["stack"]["blocks"])["attn"]
    x = np.asarray(seen["residual_before"][0, 0])
    q, k, v = (x @ attn[n][:, 0] + attn[f"{n}_bias"][0] for n in ("query", "key", "value"))
    scores = q @ k.T / np.sqrt(8)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(seen["attention"][0, 0, 0], weights, atol=1e-6)
    np.testing.assert_allclose(seen["values"][0, 0, :, 0], v, atol=1e-6)
    mixed = reference(q, k, v, np.ones((4, 4), bool), scale=8**-0.5)
    np.testing.assert_allclose(seen["heads"][0, 0, :, 0], mixed, atol=1e-6)


def test_layers_and_places_are_those_that_were_chosen():
    model, params, args = make("alternating")
    _, seen = run(model, params, *args, capture=("residual_before", "logits"), layers=(4, 1))
    _, every = run(model, params, *args, capture=("residual_before", "residual_after"))
    assert set(seen) == {"residual_before", "logits"}
    np.testing.assert_allclose(
        seen["residual_before"], every["residual_before"][jnp.array([4, 1])], atol=1e-6
    )
    np.testing.assert_array_equal(every["residual_after"][:-1], every["residual_before"][1:])


def test_an_edit_changes_the_layer_and_place_that_it_names():
    model, params, args = make("llama")

    def patched(place):
        """Logits when all values of a place in layer 0 come from another text."""
        other, seen = run(model, params, *args, capture=(place,))
        edit = lambda x, layer: seen[place][0] if layer == 0 else x
        return run(model, params, args[0][::-1], edits={place: edit})[0], other

    # everything after the residual stream that leaves layer 0 is as in the other text
    got, other = patched("residual_after")
    np.testing.assert_allclose(got, other, atol=1e-6)
    got, other = patched("mlp_hidden")
    assert np.abs(got - other).max() > 1e-3


def test_a_kernel_gives_way_to_the_plain_formula_where_weights_are_read():
    config = dataclasses.replace(STYLES["gpt2"], max_len=128)
    model = CausalLM(config, ComputeConfig(attention="splash"))
    params = random_params(model)
    with pytest.raises(ValueError, match="splash"):
        run(model, params, TOKENS)
    logits, seen = run(model, params, TOKENS, capture=("attention",))
    np.testing.assert_allclose(seen["attention"].sum(-1), 1, atol=1e-5)
    plain = model.clone(compute=ComputeConfig(attention="xla"))
    np.testing.assert_allclose(logits, run(plain, params, TOKENS)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_recomputation_and_shared_weights_make_no_difference():
    # two layers share the weights of each of two blocks
    model, params, args = make("albert")
    again = model.clone(compute=ComputeConfig(remat="full"))

    def loss(model, capture, p):
        return jnp.square(observe(model, p, *args, capture=capture)[0]).mean()

    plain = jax.jit(jax.grad(lambda p: loss(model, (), p)))(params)
    seen = jax.jit(jax.grad(lambda p: loss(again, ("heads", "attention"), p)))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, seen)


def test_gradients_flow_through_what_is_captured():
    model, params, args = make("bert")

    def value(mask):
        edits = {"attention": lambda x, layer: x * mask}
        return observe(model, params, *args, edits=edits, **INPUTS)[0][0, 0, 0]

    assert np.abs(jax.jit(jax.grad(value))(jnp.ones((4, 8, 8)))).max() > 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(capture=("atention",)), "no place 'atention'; did you mean attention?"),
        (dict(capture=("cross_values",)), "no place 'cross_values'"),
        (dict(edits={"nothing": lambda x, layer: x}), "no place 'nothing'; there are attention,"),
        (
            dict(capture=("heads",), layers=(7,)),
            "layer 7: this Classifier has heads in layers 0 to 1",
        ),
        (dict(capture=("heads",), layers=(-1,)), "layer -1"),
        (dict(capture=("heads",), layers=()), "at least one layer"),
        (dict(capture=("logits",), layers=(7,)), "has no effect: no place inside the model"),
        (dict(layers=(0,)), "has no effect: no place inside the model"),
        (dict(edits={"heads": lambda x, layer: x[:1]}), "the edit of heads in layer 0"),
        (dict(edits={"heads": lambda x, layer: None}), "the edit of heads in layer 0 .* NoneType"),
    ],
)
def test_what_is_not_there_is_refused_by_name(options, message):
    model = Classifier(STYLES["bert"], 2)
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        jax.eval_shape(lambda p: observe(model, p, TOKENS, **options, **INPUTS), params)


def test_experts_have_no_hidden_units_to_read():
    model = CausalLM(dataclasses.replace(STYLES["gpt2"], num_experts=4))
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    with pytest.raises(ValueError, match="no place 'mlp_hidden'"):
        jax.eval_shape(lambda p: observe(model, p, TOKENS, capture=("mlp_hidden",)), params)
