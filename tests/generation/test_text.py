"""Text from tokens: characters across tokens, stop strings, and the space before the first word."""

import pytest
from tokenizers import decoders

from jaxlm.config import TokenizerConfig
from jaxlm.data import tokenizer as tokenizers
from jaxlm.generation.settings import Settings
from jaxlm.generation.text import TextStream

TEXTS = [
    "héllo wörld 你好, the end. User: the end",
    "👩‍🚀 the \N{REPLACEMENT CHARACTER} x",
    " a\n\nb  c",
]


@pytest.fixture(scope="module", params=["byte_bpe", "unigram", "char"])
def tokenizer(request):
    return tokenizers.train(TEXTS * 4, TokenizerConfig(kind=request.param, vocab_size=300))


def pieces(tokenizer, text, **settings):
    """The pieces of a text's tokens, without what comes after a stop string, and whether it stopped."""
    stream = TextStream(tokenizer, Settings(**settings))
    given = [stream.add(token) for token in tokenizer.encode(text)]
    return [*given, stream.finish()], stream.stopped


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_join_to_the_decoded_text(tokenizer, text):
    want = tokenizer.decode(tokenizer.encode(text))
    given, stopped = pieces(tokenizer, text)
    assert "".join(given) == want
    assert not stopped
    # no half characters: only the text's own replacement character
    assert sum(piece.count("\N{REPLACEMENT CHARACTER}") for piece in given) == want.count(
        "\N{REPLACEMENT CHARACTER}"
    )


def test_text_is_given_out_before_the_end(tokenizer):
    given, _ = pieces(tokenizer, TEXTS[0])
    assert sum(bool(piece) for piece in given) > 5


@pytest.mark.parametrize(
    ("stop", "want"),
    [
        (("User:",), "héllo wörld 你好, the end. "),
        (("nothing", "好, t", "end"), "héllo wörld 你"),
        # the beginning of a stop string is text if the rest does not come
        (("the ende",), TEXTS[0]),
        (("end",), "héllo wörld 你好, the "),
    ],
)
def test_nothing_is_given_out_from_a_stop_string_on(tokenizer, stop, want):
    given, stopped = pieces(tokenizer, TEXTS[0], stop=stop)
    assert "".join(given) == want
    assert stopped == (want != TEXTS[0])
    # and never even for a moment
    for i in range(len(given)):
        assert want.startswith("".join(given[: i + 1]))


def test_a_continuation_keeps_the_space_before_its_first_word():
    kind = TokenizerConfig(kind="unigram", vocab_size=300)
    tokenizer = tokenizers.train(TEXTS * 4, kind)
    prompt = tokenizer.encode("héllo")
    rest = tokenizer.encode("héllo wörld")[len(prompt) :]
    # as in Llama's and T5's tokenizers, whose texts begin with a space that decoding takes away
    metaspace = decoders.Metaspace(prepend_scheme="always")
    tokenizer.backend.decoder = metaspace
    for given, want in ((prompt, " wörld"), ((), "wörld")):
        stream = TextStream(tokenizer, Settings(), given)
        assert "".join(map(stream.add, rest)) + stream.finish() == want


def test_end_tokens_are_no_text(tokenizer):
    assert tokenizer.eos_id is not None
    stream = TextStream(tokenizer, Settings(stop_ids=(tokenizer.eos_id,)))
    text = "".join(map(stream.add, [*tokenizer.encode("the end"), tokenizer.eos_id]))
    assert text + stream.finish() == tokenizer.decode(tokenizer.encode("the end"))


def test_a_character_that_is_never_finished_shows_at_the_end():
    tokenizer = tokenizers.train(["a"], TokenizerConfig(kind="byte_bpe", vocab_size=300))
    ids = tokenizer.encode("a你")
    stream = TextStream(tokenizer, Settings())
    assert [stream.add(token) for token in ids[:-1]] == ["a", "", ""]
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"
