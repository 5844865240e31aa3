"""Attention against plain NumPy, and its implementations against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import attention, masks, target

both = pytest.mark.usefixtures("formulas")

B, T, N, K, H = 2, 6, 4, 2, 8
SEGMENTS = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])


def random_qkv(q_len=T, kv_len=T, kv_heads=K, heads=N, width=H, dtype=jnp.float32, rows=B):
    rng = np.random.default_rng(0)
    shapes = [(rows, q_len, heads, width)] + 2 * [(rows, kv_len, kv_heads, width)]
    return [rng.normal(size=s).astype(np.float32).astype(dtype) for s in shapes]


@functools.partial(jax.jit, static_argnames=("softcap", "scale", "dropout", "implementation"))
def attend(q, k, v, mask, *, implementation="xla", **options):
    return attention.attend(q, k, v, mask, implementation=implementation, **options)


def brute(q, k, v, rule, *, scale=H**-0.5, softcap=None):
    """The definition, row by row and head by head; `rule(b, t, s)`: whether query t of row b may attend to key s."""
    out = np.zeros(q.shape, np.float64)
    group = q.shape[2] // k.shape[2]
    for b, n in np.ndindex(q.shape[0], q.shape[2]):
        allowed = np.array(
            [[rule(b, t, s) for s in range(k.shape[1])] for t in range(q.shape[1])], bool
        )
        out[b, :, n] = attention.reference(
            q[b, :, n],
            k[b, :, n // group],
            v[b, :, n // group],
            allowed,
            scale=scale,
            softcap=softcap,
        )
    return out


@pytest.mark.parametrize("is_cached", [False, True])
def test_sinks_count_like_a_key_without_a_value(is_cached):
    q, k, v = random_qkv()
    sinks, mask = np.linspace(-2, 3, N).astype(np.float32), masks.Mask(causal=True, window=3)
    # a key whose product with every query is the sink: one more dim, in which queries are 1
    wide = np.concatenate([q, np.ones((*q.shape[:3], 1))], -1)
    group, want = N // K, np.zeros(q.shape)
    for b, n in np.ndindex(B, N):
        keys = np.concatenate([k[b, :, n // group], np.zeros((T, 1))], -1)
        sink = np.append(np.zeros(H), sinks[n] / H**-0.5)
        allowed = np.array([[t - 3 < s <= t for s in range(T)] + [True] for t in range(T)])
        want[b, :, n] = attention.reference(
            wide[b, :, n],
            np.vstack([keys, sink]),
            np.vstack([v[b, :, n // group], np.zeros(H)]),
            allowed,
            scale=H**-0.5,
        )
    if is_cached:
        got = attention.attend_to_cache(q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask, sinks=sinks)
    else:
        got = attend(q, k, v, mask, sinks=sinks)
    np.testing.assert_allclose(got, want, atol=2e-6)
    with pytest.raises(ValueError, match="splash does not support attention sinks"):
        attend(q, k, v, mask, sinks=sinks, implementation="splash")


def same_segment(b, t, s):
    return SEGMENTS[b, t] == SEGMENTS[b, s]


SEGMENT_MASK = dict(q_segment_ids=jnp.asarray(SEGMENTS), kv_segment_ids=jnp.asarray(SEGMENTS))
RULES = {
    "all": (masks.Mask(), lambda b, t, s: True),
    "causal": (masks.Mask(causal=True), lambda b, t, s: s <= t),
    "window": (masks.Mask(window=2), lambda b, t, s: abs(t - s) < 2),
    "causal window": (masks.Mask(causal=True, window=3), lambda b, t, s: t - 3 < s <= t),
    "segments": (masks.Mask(**SEGMENT_MASK), same_segment),
    "causal segments in a window": (
        masks.Mask(causal=True, window=2, **SEGMENT_MASK),
        lambda b, t, s: same_segment(b, t, s) and t - 2 < s <= t,
    ),
}


@both
@pytest.mark.parametrize("name", RULES)
def test_rules_of_the_mask(name):
    mask, rule = RULES[name]
    q, k, v = random_qkv()
    got = attend(q, k, v, mask)
    np.testing.assert_allclose(got, brute(q, k, v, rule), atol=2e-6)


@both
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_query_heads_share_key_heads_in_order(kv_heads):
    q, k, v = random_qkv(kv_heads=kv_heads)
    got = attend(q, k, v, masks.Mask(causal=True))
    np.testing.assert_allclose(got, brute(q, k, v, lambda b, t, s: s <= t), atol=2e-6)


@both
def test_scale_and_softcap():
    q, k, v = random_qkv()
    got = attend(q, k, v, masks.Mask(causal=True), scale=0.7, softcap=2.0)
    want = brute(q, k, v, lambda b, t, s: s <= t, scale=0.7, softcap=2.0)
    np.testing.assert_allclose(got, want, atol=3e-6)


@both
def test_queries_at_positions_in_a_cache():
    q, k, v = random_qkv(q_len=2, kv_len=7)
    positions = np.array([[3, 4], [0, 1]])
    mask = masks.Mask(causal=True, q_positions=jnp.asarray(positions))
    got = attend(q, k, v, mask)
    np.testing.assert_allclose(got, brute(q, k, v, lambda b, t, s: s <= positions[b, t]), atol=2e-6)


@both
def test_a_mask_given_as_a_matrix():
    q, k, v = random_qkv()
    dense = np.random.default_rng(0).random((B, 1, T, T)) < 0.7
    dense |= np.eye(T, dtype=bool)
    got = attend(q, k, v, masks.Mask(dense=jnp.asarray(dense)))
    np.testing.assert_allclose(got, brute(q, k, v, lambda b, t, s: dense[b, 0, t, s]), atol=2e-6)


@both
@pytest.mark.parametrize("shape", [(B, N), (1, N), (1, 1), (B, 1)])
def test_bias_is_added_to_the_scaled_scores(shape):
    q, k, v = random_qkv(kv_heads=N)
    bias = np.random.default_rng(1).normal(size=(*shape, T, T))
    got = attend(q, k, v, masks.Mask(causal=True), bias=jnp.asarray(bias, jnp.float32))
    # q k + bias as one product: each query also carries its number, each key its column of the bias
    bias = np.broadcast_to(bias, (B, N, T, T))
    numbers = np.broadcast_to(np.eye(T)[None, :, None], (B, T, N, T))
    q_wide = np.concatenate([q, numbers], -1)
    k_wide = np.concatenate([k, np.einsum("BNTS->BSNT", bias) * H**0.5], -1)
    want = brute(q_wide, k_wide, np.concatenate([v, numbers], -1), lambda b, t, s: s <= t)
    np.testing.assert_allclose(got, want[..., :H], atol=2e-6)


@both
def test_bias_of_each_query_head_under_shared_key_heads():
    q, k, v = random_qkv()
    bias = np.random.default_rng(1).normal(size=(B, N, T, T))
    shared = attend(q, k, v, masks.Mask(), bias=bias)
    k, v = (np.repeat(x, N // K, axis=2) for x in (k, v))
    apart = attend(q, k, v, masks.Mask(), bias=bias)
    np.testing.assert_allclose(shared, apart, atol=1e-6)


def plain(q, k, v, allowed, bias, factors, softcap=None):
    """The definition in jax.numpy, for gradients; `factors` multiply the probabilities."""
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("BTNH,BSNH->BNTS", q, k) * H**-0.5
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = jnp.where(allowed, scores + bias, -jnp.inf)
    return jnp.einsum("BNTS,BSNH->BTNH", jax.nn.softmax(scores) * factors, v)


@both
@pytest.mark.parametrize(
    "options", [dict(), dict(softcap=2.0), dict(dropout=0.3, key=jax.random.key(4))], ids=str
)
def test_gradients_are_those_of_the_definition(options):
    q, k, v = random_qkv()
    mask, rule = RULES["causal segments in a window"]
    allowed = np.array([[[[rule(b, t, s) for s in range(T)] for t in range(T)]] for b in range(B)])
    bias = np.random.default_rng(1).normal(size=(B, N, T, T)).astype(np.float32)
    direction = np.random.default_rng(2).normal(size=q.shape).astype(np.float32)
    factors = 1.0
    if "key" in options:
        # what dropout does to the probabilities, seen through the unit matrix
        unit = np.broadcast_to(np.eye(T, dtype=np.float32)[None, :, None], (B, T, K, T))
        before = np.asarray(attend(q, k, unit, mask, bias=bias))
        after = np.asarray(attend(q, k, unit, mask, bias=bias, **options))
        factors = np.divide(after, before, where=before > 0, out=np.ones_like(before))
        factors = factors.swapaxes(1, 2)
        assert (factors == 0).any()

    def gradients(f):
        return jax.jit(jax.grad(lambda *x: (f(*x) * direction).sum(), (0, 1, 2, 3)))(q, k, v, bias)

    got = gradients(lambda q, k, v, bias: attend(q, k, v, mask, bias=bias, **options))
    softcap = options.get("softcap")
    want = gradients(lambda q, k, v, bias: plain(q, k, v, allowed, bias, factors, softcap))
    for x, y in zip(got, want):
        np.testing.assert_allclose(x, y, atol=5e-6)


@both
def test_a_query_without_keys_gives_no_nan():
    q, k, v = random_qkv()
    dense = jnp.ones((B, 1, T, T), bool).at[0, 0, 2].set(False)

    def total(q, k, v):
        return attend(q, k, v, masks.Mask(dense=dense)).sum()

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k, v)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


@both
def test_large_scores_do_not_overflow():
    q, k, v = random_qkv()
    got = attend(q * 1e4, k * 1e4, v, masks.Mask(causal=True))
    # softmax becomes argmax
    scores = np.einsum("BTNH,BSNH->BNTS", q, np.repeat(k, N // K, axis=2))
    scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
    best = np.argmax(scores, -1)
    values = np.repeat(v, N // K, axis=2)
    want = np.stack([[values[b, best[b, n], n] for n in range(N)] for b in range(B)])
    np.testing.assert_allclose(got, want.swapaxes(1, 2), atol=1e-5)


@both
def test_bfloat16_stays_bfloat16_and_close():
    q, k, v = random_qkv()
    exact = attend(q, k, v, masks.Mask(causal=True))
    got = attend(*(x.astype(jnp.bfloat16) for x in (q, k, v)), masks.Mask(causal=True))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(np.float32), exact, atol=0.03)


@both
def test_dropout_drops_probabilities_and_scales_the_rest():
    q, k, _ = random_qkv(q_len=8, kv_len=8, kv_heads=N)
    # with the unit matrix for values the output is the probabilities
    v = np.broadcast_to(np.eye(8, dtype=np.float32)[None, :, None], (B, 8, N, 8))
    drop = functools.partial(attend, q, k, v, masks.Mask())
    whole = np.asarray(drop(dropout=0.25))
    np.testing.assert_array_equal(whole, drop())
    np.testing.assert_allclose(whole.sum(-1), 1.0, atol=1e-6)
    dropped = np.asarray(drop(dropout=0.25, key=jax.random.key(1)))
    kept = dropped > 0
    np.testing.assert_allclose(dropped[kept], whole[kept] / 0.75, rtol=1e-5)
    # 512 coins: within five standard deviations of 0.75
    assert abs(kept.mean() - 0.75) < 5 * (0.75 * 0.25 / kept.size) ** 0.5
    other = np.asarray(drop(dropout=0.25, key=jax.random.key(2)))
    assert ((other > 0) != kept).any()


# --- splash: the Pallas kernel for TPUs, emulated ---

LONG = 384  # three blocks of 128, so that the window leaves whole blocks out
DOCUMENTS = np.repeat([1, 2, 3, 0], [200, 60, 84, 40])[None]
LONG_MASKS = {
    "causal segments in a window": dict(
        causal=True,
        window=40,
        q_segment_ids=jnp.asarray(DOCUMENTS),
        kv_segment_ids=jnp.asarray(DOCUMENTS),
    ),
    "causal": dict(causal=True),
    "window both ways": dict(window=40),
    "all": dict(),
}


@pytest.mark.parametrize(
    ("name", "kv_heads", "softcap"),
    [("causal segments in a window", 1, None), ("causal", 2, 2.0)],
)
def test_splash_and_its_gradients_equal_xla(name, kv_heads, softcap):
    q, k, v = random_qkv(LONG, LONG, kv_heads=kv_heads, heads=2, width=64, rows=1)
    direction = np.random.default_rng(1).normal(size=q.shape)

    def run(implementation):
        def total(q, k, v):
            mask = masks.Mask(**LONG_MASKS[name])
            out = attend(q, k, v, mask, softcap=softcap, implementation=implementation)
            return (out * direction).sum(), out

        (_, out), gradients = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(q, k, v)
        return out, *gradients

    for got, want in zip(run("splash"), run("xla")):
        np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("name", ["window both ways", "all"])
def test_splash_without_causality_equals_xla(name):
    q, k, v = random_qkv(128, 128, kv_heads=1, heads=1, width=64, rows=1)
    mask = masks.Mask(**LONG_MASKS[name])
    got = jax.jit(functools.partial(attention.attend, implementation="splash"))(q, k, v, mask)
    want = attend(q, k, v, mask)
    np.testing.assert_allclose(got, want, atol=2e-6)


# --- cuDNN: needs a GPU; here what it is asked for is answered by XLA instead ---


@pytest.mark.parametrize("name", RULES)
def test_cudnn_gets_the_same_attention(name, monkeypatch):
    asked = []

    def answer(*args, implementation, **options):
        asked.append(implementation)
        return original(*args, implementation="xla", **options)

    original = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", answer)
    mask, _ = RULES[name]
    q, k, v = random_qkv(dtype=jnp.bfloat16)
    got = attend(q, k, v, mask, scale=0.5, implementation="cudnn")
    assert asked == ["cudnn"]
    want = attend(q, k, v, mask, scale=0.5)
    np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), atol=0.03)


# --- what an implementation does not support ---

HALF = dict(dtype=jnp.bfloat16)
CACHE = masks.Mask(causal=True, q_positions=jnp.zeros((B, T), jnp.int32))
REFUSED = {
    "cudnn in float32": ("cudnn", {}, masks.Mask(), {}, "float32"),
    "cudnn softcap": ("cudnn", HALF, masks.Mask(), dict(softcap=1.0), "soft cap"),
    "cudnn head width": ("cudnn", dict(HALF, width=12), masks.Mask(), {}, "heads of width 12"),
    "cudnn odd length with a mask": (
        "cudnn",
        dict(HALF, q_len=5, kv_len=5),
        masks.Mask(window=2),
        {},
        "lengths 5 and 5",
    ),
    "splash short": ("splash", {}, masks.Mask(causal=True), {}, "multiples of 128"),
    "splash cache": ("splash", {}, CACHE, {}, "key cache"),
    "splash bias": ("splash", {}, masks.Mask(), dict(bias=jnp.zeros((1, 1, T, T))), "a bias"),
    "splash dropout": (
        "splash",
        {},
        masks.Mask(),
        dict(dropout=0.1, key=jax.random.key(0)),
        "dropout",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_explicit_implementation_rejects_what_it_does_not_support(case):
    implementation, shape, mask, options, words = REFUSED[case]
    q, k, v = random_qkv(**shape)
    with pytest.raises(ValueError, match=words) as e:
        attention.attend(q, k, v, mask, implementation=implementation, **options)
    assert str(e.value).startswith(f"compute.attention={implementation} does not support")
    assert str(e.value).endswith("use auto or xla")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("case", REFUSED)
def test_auto_falls_back_to_xla_for_unsupported_cases(case):
    implementation, shape, mask, options, _ = REFUSED[case]
    q, k, v = random_qkv(**shape)
    with target.plain_formulas():
        want = attention.attend(q, k, v, mask, implementation="xla", **options)
    platform = {"cudnn": "gpu", "splash": "tpu"}[implementation]
    with target.compile_for(platform):
        assert attention.resolve("auto") == implementation
        got = attention.attend(q, k, v, mask, **options)
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))


def test_auto_on_a_cpu_is_xla():
    assert attention.resolve("auto") == "xla"


def test_the_choices_of_a_trace_are_told_with_their_reasons():
    q, k, v = random_qkv(q_len=128, kv_len=128)
    run = functools.partial(jax.eval_shape, attention.attend)
    with attention.choices() as outer, target.compile_for("tpu"):
        with attention.choices() as inner:
            run(q, k, v, masks.Mask(causal=True))
        run(q, k, v, masks.Mask(causal=True, window=5))
        run(q, k, v, masks.Mask(), bias=jnp.zeros((1, N, 128, 128)))
    assert list(inner) == ["splash"]
    assert list(outer) == ["splash", "xla: splash does not support a bias on the scores"]
