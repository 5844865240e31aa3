"""Weight surgery: the outputs that it must not change."""

import dataclasses

import jax
import numpy as np
import pytest
from styles import ENCODER_DECODERS, F32, STYLES, hidden, language_model, params

from jaxlm.config import EncoderConfig, EncoderDecoderConfig, TransformerConfig
from jaxlm.models import surgery
from jaxlm.models.heads import init_params
from jaxlm.params import path_name

LOOP = dataclasses.replace(F32, unroll=1)
TOKENS = np.random.default_rng(0).integers(1, 40, (2, 6))
SOURCE = np.random.default_rng(1).integers(1, 40, (2, 7))


def run(config, tree, *tokens, method=None, **inputs):
    """Logits of the language model, after a check that the tree matches the config."""
    model = language_model(config, LOOP)
    shapes = jax.tree.map(np.shape, jax.eval_shape(lambda: init_params(model, jax.random.key(0))))
    assert jax.tree.map(np.shape, tree) == shapes
    apply = lambda p, *x: model.apply({"params": p}, *x, method=method, **inputs)
    return np.asarray(jax.jit(apply)(tree, *tokens))


def states(config, tree, tokens, **inputs):
    """Hidden states of an encoder or a decoder."""
    return np.asarray(jax.jit(lambda p: hidden(config, p, tokens, LOOP, **inputs))(tree))


def edited(tree, change):
    """The tree with `change(path, array)` for each array."""
    return jax.tree.map_with_path(lambda path, x: change(path_name(path), x), tree)


# --- layers ---


def silent(tree, dropped, where):
    """The same tree, with dropped blocks that add nothing to the residual stream."""

    def change(path, x):
        is_output = path.split("/")[-1] in ("out", "out_bias", "down", "down_bias")
        if where in path and is_output:
            return x.at[np.array(dropped)].set(0.0)
        return x

    return edited(tree, change)


def test_keeping_some_layers_equals_removing_the_others():
    config = dataclasses.replace(
        STYLES["gpt2"], num_layers=4, window=3, layer_pattern=("local", "global")
    )
    whole = jax.tree.map(lambda x: x, params("gpt2"))
    blocks = whole["backbone"]["stack"]["blocks"]
    whole["backbone"]["stack"]["blocks"] = jax.tree.map(
        lambda x: jax.numpy.concatenate([x, x[::-1] + 0.01]), blocks
    )
    kept, tree = surgery.keep_layers(config, whole, [0, 2, 3])
    assert kept.local_layers == (True, True, False)
    assert whole["backbone"]["stack"]["blocks"]["mlp"]["up"].shape[0] == 4
    want = run(config, silent(whole, [1], "blocks"), TOKENS)
    np.testing.assert_allclose(run(kept, tree, TOKENS), want, atol=1e-5)


def test_kept_layers_of_several_groups_get_parameters_of_their_own():
    config, tree = STYLES["albert"], params("albert")
    kept, fewer = surgery.keep_layers(config, tree, [0, 1, 3])
    assert kept.layer_groups is None
    # a copy for each layer instead of one for two
    copied = jax.tree.map(lambda x: x, tree)
    stack = copied["backbone"]["stack"]
    stack["blocks"] = jax.tree.map(lambda x: x.repeat(2, 0), stack["blocks"])
    own = dataclasses.replace(config, layer_groups=None)
    np.testing.assert_allclose(run(own, copied, TOKENS), run(config, tree, TOKENS), atol=1e-5)
    want = run(*surgery.keep_layers(own, copied, [0, 1, 3]), TOKENS)
    np.testing.assert_allclose(run(kept, fewer, TOKENS), want, atol=1e-5)
    one = dataclasses.replace(config, layer_groups=1)
    assert surgery.keep_layers(one, tree, [2, 3])[0].layer_groups == 1


def test_layers_of_either_side_of_an_encoder_decoder():
    config, tree = ENCODER_DECODERS["t5"], params("t5")
    kept, fewer = surgery.keep_layers(config, tree, [1], [0])
    assert (kept.encoder.num_layers, kept.decoder.num_layers) == (1, 1)
    want = silent(silent(tree, [0], "encoder/stack"), [1], "decoder/stack")
    want = run(config, want, SOURCE, TOKENS)
    np.testing.assert_allclose(run(kept, fewer, SOURCE, TOKENS), want, atol=1e-5)
    assert surgery.keep_layers(config, tree, [1])[0].decoder.num_layers == 2


@pytest.mark.parametrize(
    ("style", "layers", "message"),
    [
        ("gpt2", [0, 2], "must be indices from 0 to 1"),
        ("gpt2", [], "must be indices from 0 to 1"),
        ("unnormed", [1], "must stay the first"),
        ("unnormed", [0, 0], "must stay the first"),
    ],
)
def test_invalid_layer_selections_are_rejected(style, layers, message):
    config = STYLES["modernbert" if style == "unnormed" else style]
    if style == "unnormed":
        config = dataclasses.replace(config, first_attn_norm=False)
    with pytest.raises(ValueError, match=message) as e:
        surgery.keep_layers(config, params("gpt2"), layers)
    assert "\n" not in str(e.value)


# --- vocabulary and positions ---


def test_a_larger_vocabulary_keeps_the_logits_of_the_old_ids():
    config, tree = ENCODER_DECODERS["bart"], params("bart")
    config = dataclasses.replace(config, tie_embeddings=False)
    table = tree["backbone"]["embed"]["token"]["embedding"]
    tree = tree | {"head": tree["head"] | {"unembedding": table[::-1]}}
    larger, grown = surgery.resize_vocabulary(config, tree, 100)
    got, want = run(larger, grown, SOURCE, TOKENS), run(config, tree, SOURCE, TOKENS)
    np.testing.assert_allclose(got[..., :40], want, atol=1e-5)
    mean = np.repeat(want.mean(-1, keepdims=True), 60, -1)
    np.testing.assert_allclose(got[..., 40:], mean, atol=1e-5)

    smaller, cut = surgery.resize_vocabulary(larger, grown, 40)
    assert smaller == config
    jax.tree.map(np.testing.assert_array_equal, cut, tree)


def test_new_rows_may_be_drawn_like_the_old():
    config, tree = STYLES["llama"], params("llama")
    _, grown = surgery.resize_vocabulary(config, tree, 1000, jax.random.key(0))
    tables = []
    for side, name in (("head", "unembedding"), ("embed", "embedding")):
        old, new = (
            t["head"] if side == "head" else t["backbone"]["embed"]["token"] for t in (tree, grown)
        )
        np.testing.assert_array_equal(new[name][:40], old[name])
        tables.append(np.asarray(new[name][40:]))
        np.testing.assert_allclose(tables[-1].mean(0), old[name].mean(0), atol=0.03)
        np.testing.assert_allclose(tables[-1].std(0), old[name].std(0), rtol=0.1)
    # each its own
    assert abs(np.corrcoef(*(x.ravel() for x in tables))[0, 1]) < 0.1


def test_longer_positions_change_nothing_for_short_texts():
    config, tree = ENCODER_DECODERS["bart"], params("bart")
    longer, grown = surgery.resize_positions(config, tree, 40)
    table = np.asarray(grown["backbone"]["decoder"]["embed"]["position_embedding"])
    old = np.asarray(tree["backbone"]["decoder"]["embed"]["position_embedding"])
    assert (len(old), len(table)) == (2 + 16, 2 + 40)
    np.testing.assert_array_equal(table, np.concatenate([old, old[2:], old[2:10]]))
    texts = SOURCE, TOKENS
    np.testing.assert_array_equal(run(longer, grown, *texts), run(config, tree, *texts))
    shorter, cut = surgery.resize_positions(longer, grown, 16)
    assert shorter == config
    jax.tree.map(np.testing.assert_array_equal, cut, tree)


# --- other kinds of models ---


def test_a_decoder_without_its_mask_is_an_encoder():
    config, tree = surgery.keep_layers(STYLES["llama"], params("llama"), [0])
    encoder, encoder_tree = surgery.as_encoder(config, tree)
    assert type(encoder) is EncoderConfig
    got, want = states(encoder, encoder_tree, TOKENS), states(config, tree, TOKENS)
    # in one layer, the last token saw everything already
    np.testing.assert_allclose(got[:, -1], want[:, -1], atol=1e-5)
    assert np.abs(got[:, 0] - want[:, 0]).max() > 0.01


def test_two_encoders_become_an_encoder_decoder():
    first, second = STYLES["bert"], dataclasses.replace(STYLES["bert"], num_layers=1)
    tree = params("bert")
    other = edited(surgery.keep_layers(first, tree, [1])[1], lambda path, x: x + 0.01)
    config, both = surgery.as_encoder_decoder(first, tree, second, other, jax.random.key(0))
    assert (config.encoder.num_layers, config.decoder.num_layers) == (2, 1)

    memory = run(config, both, SOURCE, method="encode")
    np.testing.assert_allclose(memory, states(first, tree, SOURCE), atol=1e-5)
    cross = both["backbone"]["decoder"]["stack"]["blocks"]["cross_attn"]
    assert np.asarray(cross["query"]).std() == pytest.approx(config.init_std, rel=0.1)
    logits = run(config, both, SOURCE, TOKENS)
    assert np.abs(logits - run(config, both, SOURCE[:, ::-1], TOKENS)).max() > 1e-3


def test_without_cross_attention_a_joined_decoder_is_unchanged():
    decoder = STYLES["gemma"]
    encoder = EncoderConfig(
        **{f.name: getattr(decoder, f.name) for f in dataclasses.fields(TransformerConfig)},
        num_token_types=0,
    )
    tree = params("gemma")
    config, both = surgery.as_encoder_decoder(encoder, tree, decoder, tree, jax.random.key(0))
    assert type(config) is EncoderDecoderConfig
    silenced = edited(both, lambda path, x: x * 0 if path.endswith("cross_attn/out") else x)
    got = run(config, silenced, SOURCE, TOKENS)
    np.testing.assert_allclose(got, run(decoder, tree, TOKENS), atol=1e-4)


def test_the_encoder_of_an_encoder_decoder():
    config, tree = ENCODER_DECODERS["bart"], params("bart")
    encoder, own = surgery.encoder_of(config, tree)
    want = run(config, tree, SOURCE, method="encode")
    np.testing.assert_allclose(states(encoder, own, SOURCE), want, atol=1e-6)


def test_two_models_that_do_not_fit_are_rejected_in_one_line():
    tree = params("bert")
    other = dataclasses.replace(STYLES["bert"], norm_eps=1e-5)
    with pytest.raises(ValueError, match="norm_eps=1e-12 and a decoder with norm_eps=1e-05") as e:
        surgery.as_encoder_decoder(STYLES["bert"], tree, other, tree, jax.random.key(0))
    assert "\n" not in str(e.value)
