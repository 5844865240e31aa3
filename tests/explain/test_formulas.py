"""The formulas of explain, on arrays whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.explain import faithfulness, flow, gradients, lens, page, probes, removal
from jaxlm.explain.flow import Maps
from jaxlm.explain.latents import token_gain

RNG = np.random.default_rng(0)


def weights(*shape):
    """Random attention weights, whose rows sum to 1."""
    return jax.nn.softmax(jnp.asarray(RNG.normal(size=shape)) * 2, axis=-1)


def test_rollout_is_the_product_of_the_layers_and_its_rows_sum_to_one():
    a = weights(3, 2, 4, 4)
    found = flow.flow(flow.rollout(Maps(a))).own
    by_hand = np.eye(4)
    for layer in np.asarray(a[:, 0]):
        by_hand = (layer + np.eye(4)) / 2 @ by_hand
    np.testing.assert_allclose(found[0], by_hand, atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


def test_rollout_of_an_encoder_decoder_shares_each_row_between_source_and_target():
    own, cross, source = weights(2, 1, 3, 3), weights(2, 1, 3, 5), weights(2, 1, 5, 5)
    found = flow.flow(flow.rollout(Maps(own, cross, source)))
    total = found.own.sum(-1) + found.source.sum(-1)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    # half of each of two layers comes from the source
    np.testing.assert_allclose(found.source.sum(-1), 0.75, atol=1e-6)


def test_relevance_without_gradients_is_the_identity():
    found = flow.flow(flow.relevance(Maps(jnp.zeros((2, 1, 3, 3))))).own
    np.testing.assert_allclose(found[0], np.eye(3))


def test_norms_are_the_lengths_of_the_vectors_that_keys_add():
    a, values, out = weights(1, 4, 3, 5), RNG.normal(size=(1, 5, 2, 6)), RNG.normal(size=(4, 6, 8))
    found = flow.norms(a, jnp.asarray(values), jnp.asarray(out))
    for t in range(3):
        for s in range(5):
            # query heads 0 and 1 use key head 0
            vector = sum(a[0, n, t, s] * values[0, s, n // 2] @ out[n] for n in range(4))
            np.testing.assert_allclose(found[0, t, s], np.linalg.norm(vector), rtol=1e-4)


def test_normalized_rows_sum_to_one_over_both_texts():
    maps = Maps(jnp.ones((1, 1, 2, 2)), 3 * jnp.ones((1, 1, 2, 2)), jnp.zeros((1, 1, 2, 2)))
    own, cross, source = flow.normalized(maps)
    np.testing.assert_allclose(own, 0.125)
    np.testing.assert_allclose(cross, 0.375)
    np.testing.assert_allclose(source, 0)


def score(x):
    """Not linear, and each row by itself."""
    return jnp.tanh(x["tokens"] @ jnp.arange(1.0, 4.0)).sum(-1) ** 2


def test_integrated_gradients_are_complete():
    x = {"tokens": jnp.asarray(RNG.normal(size=(3, 4, 3)) * 0.5, jnp.float32)}
    baseline = jax.tree.map(jnp.zeros_like, x)
    found = gradients.integrated_gradients(score, x, baseline, 32)
    total = found.attributions["tokens"].sum(-1)
    np.testing.assert_allclose(total, score(x) - score(baseline), atol=1e-3)
    np.testing.assert_allclose(found.error, jnp.abs(total - score(x) + score(baseline)), atol=1e-6)
    assert found.error.max() < 1e-3
    # with two points the error is there, and is told
    assert gradients.integrated_gradients(score, x, baseline, 2).error.max() > 1e-2


def test_integrated_gradients_need_a_step():
    with pytest.raises(ValueError, match="with 0 steps: at least 1 is needed"):
        gradients.integrated_gradients(lambda x: x["a"].sum((1, 2)), {}, {}, 0)


def test_a_linear_score_gives_each_token_its_own_part_by_every_gradient():
    linear = lambda x: x["tokens"] @ jnp.array([1.0, -2.0]) @ jnp.array([3.0, 1.0])
    x = {"tokens": jnp.asarray(RNG.normal(size=(1, 2, 2)), jnp.float32)}
    parts = (x["tokens"] @ jnp.array([1.0, -2.0]))[0] * jnp.array([3.0, 1.0])
    zero = jax.tree.map(jnp.zeros_like, x)
    for found in (
        gradients.input_x_gradient(linear, x),
        gradients.integrated_gradients(linear, x, zero).attributions,
        removal.occlusion(linear, x, {"tokens": jnp.zeros(2)}),
    ):
        np.testing.assert_allclose(found["tokens"][0], parts, rtol=1e-4, atol=1e-5)
    found = gradients.saliency(linear, x)["tokens"][0]
    np.testing.assert_allclose(found, np.sqrt(5) * np.array([3, 1]), rtol=1e-5)


def test_value_zeroing_finds_the_key_that_a_position_uses():
    # position 0 has its own direction, position 1 that of key 2
    plain = jnp.array([[[[1.0, 0.0], [0.0, 1.0]]]])
    after = lambda key: plain.at[0, 0, 1].set(
        jnp.where(key == 2, jnp.array([1.0, 0.0]), plain[0, 0, 1])
    )
    found = removal.value_zeroing(after, plain, 3)
    np.testing.assert_allclose(found[0, 0], [[0, 0, 0], [0, 0, 1]], atol=1e-6)


# token 2 alone makes the answer
FREE = jnp.array([[False, True, True, True, True, True]])


def probability(removed):
    return jnp.where(removed[:, 2], 0.1, 0.9)


def test_aopc_prefers_the_attribution_that_names_the_token_which_matters():
    right = jnp.array([[9.0, 0.0, 5.0, 1.0, 2.0, 3.0]])
    found = faithfulness.aopc(probability, right, FREE)
    # without its first token the answer is gone, and with it alone it is there
    np.testing.assert_allclose(found.comprehensiveness, 0.8, atol=1e-6)
    np.testing.assert_allclose(found.sufficiency, 0.0, atol=1e-6)
    wrong = faithfulness.aopc(probability, -right, FREE)
    # among the first half of five tokens, rounded up, it is not
    np.testing.assert_allclose(wrong.comprehensiveness, 0.0, atol=1e-6)
    np.testing.assert_allclose(wrong.sufficiency, 0.8, atol=1e-6)


def test_control_tokens_are_never_removed():
    removed = []

    def see(mask):
        removed.append(mask)
        return mask.sum(-1).astype(jnp.float32)

    with jax.disable_jit():
        faithfulness.aopc(see, jnp.arange(6.0)[::-1][None], FREE)
    assert not any(bool(mask[0, 0]) for mask in removed)
    assert [int(mask.sum()) for mask in removed] == [0, 1, 4, 1, 4, 1, 4, 3, 2]


def test_kendalls_tau_is_that_of_the_book():
    free = np.array([[True] * 4 + [False]] * 4)
    a = np.array([[1.0, 2, 3, 4, 0]] * 4)
    b = np.array([[10.0, 20, 30, 40, 9], [4, 3, 2, 1, 9], [1, 2, 2, 3, 9], [5, 5, 5, 5, 9]])
    found = faithfulness.agreement(a, b, free)
    # one tie of six pairs: 5 / sqrt(6 * 5)
    np.testing.assert_allclose(found, [1, -1, 5 / np.sqrt(30), np.nan], atol=1e-12)


def test_a_probe_finds_what_is_planted_and_the_control_task_does_not():
    words = RNG.integers(0, 200, 600)
    labels = words % 2
    features = RNG.normal(size=(2, 600, 8))
    # layer 1 says the class, not the word
    features[1, :, 3] += 3 * (2 * labels - 1)
    found = probes.probe(jnp.asarray(features), labels, words)
    assert found.accuracy[1] > 0.95
    assert found.selectivity[1] > 0.3
    assert found.accuracy[0] < 0.65


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 0, 0], "two classes"), ([0, 1], "3 features, 2 labels"), ([0, 1, 1], "two classes")],
)
def test_probes_refuse_what_they_cannot_learn_from(labels, message):
    options = {"held_out": 0.1} if labels == [0, 1, 1] else {}
    with pytest.raises(ValueError, match=message):
        probes.probe(jnp.zeros((3, 2)), np.array(labels), np.arange(3), **options)


def test_a_tuned_lens_undoes_a_turn_of_the_basis():
    last = jnp.asarray(RNG.normal(size=(400, 6)), jnp.float32)
    turn = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    found = lens.tune(
        lambda h: 2 * h, jnp.stack([last @ turn, last]), steps=150, learning_rate=0.05
    )
    assert found.before[0] > 10 * found.after[0]
    zeros = lens.Translator(jnp.zeros((1, 6, 6)), jnp.zeros((1, 6)))
    np.testing.assert_array_equal(lens.translate(zeros, last[None]), last[None])


@pytest.mark.parametrize("shapes", [((1, 6, 6), (1, 6)), ((2, 6, 6), (2, 1)), ((2, 4, 4), (2, 4))])
def test_a_tuned_lens_of_another_model_is_refused(shapes):
    found = jnp.ones((2, 3, 6))
    with pytest.raises(ValueError, match="2 layers of width 6: it was trained for another one"):
        lens.translate(lens.Translator(*map(jnp.zeros, shapes)), found)


@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 0, 6), (3, 1, 4, 6)])
def test_a_tuned_lens_needs_states(shape):
    with pytest.raises(ValueError, match="at least a layer and a state is needed"):
        lens.tune(lambda h: h, jnp.zeros(shape), steps=2)


def test_a_token_gains_what_the_latent_says_beyond_the_tokens_before():
    # two latents; the first token tells which one it is, and the second then follows from the first
    unknown = jnp.log(jnp.array([[0.9, 0.9], [0.1, 0.1]]))
    gain = token_gain(unknown[0], unknown)
    first = np.log(0.9 / 0.5)
    second = np.log(0.9 / (0.9 * 0.9 + 0.1 * 0.1))
    np.testing.assert_allclose(gain, [first, second], rtol=1e-5)
    # a latent that says nothing gives nothing
    np.testing.assert_allclose(token_gain(unknown[0], unknown[:1].repeat(3, 0)), 0, atol=1e-6)


def test_a_token_cannot_leave_its_place_in_the_page():
    evil = "</script><img src=x onerror=alert(1)>{{data}}"
    row = {"answer": evil, "score": 1.0, "probability": 0.5}
    row["top"] = [{"answer": evil, "probability": 0.5}]
    cell = {"top": row["top"], "rank": 0}
    values = {
        "model": evil,
        "text": evil,
        "answers_with": "next token",
        "score": evil,
        "tokens": [evil, "b"],
        "target_tokens": [],
        "rows": [row],
        "notes": [evil],
        "methods": {"rollout": {"tokens": [[0.5, -0.25]], "sufficiency": [None]}},
        "lens": {"columns": [evil], "layers": [[cell]]},
        "patching": {
            "place": evil,
            "corrupt_tokens": [evil, "c"],
            "clean_score": 1.0,
            "corrupt_score": 0.0,
            "restored": [[1.0, -0.5]],
        },
    }
    html = page.page(values, {"attention": np.eye(2)[None, None]})
    assert "<img" not in html
    assert html.count("</script>") == 2
    assert html.count("{{data}}") >= 8
    # colours are not the only sign
    assert "(-0.250)" in html
    assert '"\\u003c/script>' in html
