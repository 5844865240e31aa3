"""Reads the model file of the sentencepiece library, and builds a tokenizer that gives the same ids.

The file is a protocol buffer (sentencepiece_model.proto of google/sentencepiece); only the fields that decide on ids
are read. What the `tokenizers` library cannot do in the same way is refused by name.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import struct
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from jaxlm.data import vocabulary

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
UNIGRAM, BPE, _WORD, _CHAR = range(1, 5)
# pieces that text must not match are spelled with this letter, which no text has
HIDDEN = "\U0010fffd"


@dataclasses.dataclass(frozen=True)
class Piece:
    """An entry of the vocabulary."""

    text: str
    score: float
    kind: int


@dataclasses.dataclass(frozen=True)
class Model:
    """A sentencepiece model."""

    pieces: tuple[Piece, ...]
    kind: int = UNIGRAM
    byte_fallback: bool = False
    rule: str = ""
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    suffixes: bool = False

    @property
    def unk_id(self) -> int:
        """Id of the piece for what the vocabulary lacks."""
        return next(i for i, piece in enumerate(self.pieces) if piece.kind == UNKNOWN)


def read(path: pathlib.Path) -> Model:
    """Reads a model file.

    Raises:
        ValueError: it is not one.
    """
    try:
        return parse(path.read_bytes())
    except (ValueError, IndexError, struct.error, KeyError, StopIteration) as e:
        raise ValueError(f"{path}: not a sentencepiece model: {e}") from e


def parse(data: bytes) -> Model:
    """The model in the bytes of a file."""
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            entry = dict(_fields(value))
            text, score = entry.get(1, b""), entry.get(2, b"\0\0\0\0")
            assert isinstance(text, bytes) and isinstance(score, bytes)
            kind = entry.get(3, NORMAL)
            pieces.append(Piece(text.decode(), struct.unpack("<f", score)[0], int(kind)))  # type: ignore[arg-type]
        elif number == 2 and isinstance(value, bytes):
            trainer = dict(_fields(value))
        elif number == 3 and isinstance(value, bytes):
            normalizer = dict(_fields(value))
    if sum(piece.kind == UNKNOWN for piece in pieces) != 1:
        raise ValueError("it has not one piece for unknown text")
    rule, charsmap = normalizer.get(1, b""), normalizer.get(2, b"")
    assert isinstance(rule, bytes) and isinstance(charsmap, bytes)
    return Model(
        tuple(pieces),
        kind=int(trainer.get(3, UNIGRAM)),
        byte_fallback=bool(trainer.get(35, 0)),
        rule=rule.decode(),
        charsmap=charsmap,
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        escape_whitespaces=bool(normalizer.get(5, 1)),
        suffixes=bool(trainer.get(24, 0)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: number, and an integer or the bytes of anything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if at + size > len(data):
            raise ValueError("it is truncated")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("it is truncated")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def build(
    model: Model,
    ids: Mapping[str, int] | None = None,
    control: Collection[str] = (),
    whole: Collection[str] = (),
) -> tokenizers.Tokenizer:
    """A tokenizer with the ids of the sentencepiece library.

    Args:
        model: the model.
        ids: a vocabulary that gives the pieces other ids and has more of them (Marian, M2M100).
        control: control tokens of `ids`; a text becomes no other entry that the model does not have.
        whole: entries of `ids` that are cut out of a text as they are (codes of languages).

    Raises:
        ValueError: the tokenizers library cannot give the same ids.
    """
    if model.kind not in (UNIGRAM, BPE):
        raise ValueError("a sentencepiece model of kind word or char is not supported")
    if model.suffixes or not model.escape_whitespaces:
        raise ValueError("a sentencepiece model that marks spaces in another way is not supported")
    if ids is not None:
        model = _with_control(model, ids, {*control, *whole})
    backend = tokenizers.Tokenizer(
        _unigram(model, ids) if model.kind == UNIGRAM else _bpe(model, ids)
    )
    backend.normalizer = _normalizer(model)
    if model.kind == UNIGRAM:
        backend.pre_tokenizer = _apart(model)
    steps: list[decoders.Decoder] = [decoders.Replace("▁", " ")]
    if ids is not None:
        steps.append(decoders.Replace(HIDDEN, ""))
    if model.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if model.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1000 if model.remove_extra_whitespaces else 1, 0))
    backend.decoder = decoders.Sequence(steps)
    for piece in model.pieces:
        if piece.kind in (CONTROL, UNKNOWN) and piece.text not in whole:
            backend.add_special_tokens([AddedToken(piece.text, normalized=False, special=True)])
        elif piece.text in whole or (piece.kind == USER and model.kind == BPE):
            # cut out of the text before anything else
            backend.add_tokens([AddedToken(piece.text, normalized=False, special=False)])
    return backend


def _normalizer(model: Model) -> normalizers.Normalizer:
    steps = _cleaning(model)
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z|(?<= ) +"), ""))
    if model.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    steps.append(normalizers.Replace(" ", "▁"))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"▁+\z"), ""))
    return normalizers.Sequence(steps)


def _cleaning(model: Model) -> list[normalizers.Normalizer]:
    """What `nfkc` and `nmt_nfkc` do: NFKC, and the letters that they change or leave in another way.

    The library's own reader of these rules (`Precompiled`) looks at whole graphemes of less than six bytes, and so does
    not compose Hangul and half-width kana, and loses accents behind a space. What still differs: NFKC puts several
    accents behind one letter in order, and composes it with any of them.
    """
    if not model.charsmap:
        return []
    if model.rule not in ("nfkc", "nmt_nfkc"):
        raise ValueError(
            f"a sentencepiece model with the cleaning rule {model.rule!r} is not supported"
        )
    (size,) = struct.unpack("<I", model.charsmap[:4])
    rules = _Trie(
        struct.unpack(f"<{size // 4}I", model.charsmap[4 : 4 + size]), model.charsmap[4 + size :]
    )
    nfkc = normalizers.NFKC()
    changed: dict[str, list[str]] = {}
    kept, ligatures = [], []
    for code in range(0x10000):
        letter = chr(code)
        category = unicodedata.category(letter)
        if category in ("Cs", "Co", "Cn"):
            continue
        usual = nfkc.normalize_str(letter)  # of the library's version of Unicode
        if usual == letter and category[0] not in "CZ" and letter not in "▁\ufffd㋿":
            continue
        ours = rules.lookup(letter)
        if len(usual) > 1 and not rules.continues(letter):
            ligatures.append(letter)
        if ours is None and usual != letter:
            kept.append(letter)
        elif ours is not None and ours != usual:
            changed.setdefault(ours, []).append(letter)
    hidden = [chr(0x10FF00 + i) for i in range(len(kept))]
    steps: list[normalizers.Normalizer] = [normalizers.Replace(*x) for x in zip(kept, hidden)]
    if ligatures:
        # an accent behind a ligature does not go to its last letter
        behind = Regex(rf"(?<=[{''.join(map(re.escape, ligatures))}])(?=\p{{M}})")
        steps += [normalizers.Replace(behind, HIDDEN), nfkc]
        steps.append(normalizers.Replace(HIDDEN, ""))
    else:
        steps.append(nfkc)
    for to, letters in changed.items():
        steps.append(normalizers.Replace(Regex(f"[{''.join(map(re.escape, letters))}]"), to))
    return steps + [normalizers.Replace(*x) for x in zip(hidden, kept)]


class _Trie:
    """The rules: a double array (Darts) from the letters to offsets into the replacements."""

    def __init__(self, units: Sequence[int], texts: bytes):
        self.units, self.texts = units, texts

    def _node(self, text: str) -> int:
        """Where the children of a text are, or -1."""
        at = self._children(self.units[0])
        for byte in text.encode():
            at ^= byte
            if at >= len(self.units) or self.units[at] & 0x800000FF != byte:
                return -1
            at ^= self._children(self.units[at])
        return at

    def lookup(self, text: str) -> str | None:
        """What replaces exactly this text."""
        at = self._node(text)
        # the unit before the children says whether there is a value
        if at < 0 or not self.units[at] & 0x80000000:
            return None
        start = self.units[at] & 0x7FFFFFFF
        return self.texts[start : self.texts.index(b"\0", start)].decode()

    def continues(self, text: str) -> bool:
        """Whether there is a rule for a longer text that begins with this one."""
        at = self._node(text)
        ends = (at ^ byte for byte in range(1, 256))
        return at >= 0 and any(
            x < len(self.units) and self.units[x] & 0x800000FF == x ^ at for x in ends
        )

    @staticmethod
    def _children(unit: int) -> int:
        return (unit >> 10) << ((unit & (1 << 9)) >> 6)


def _unigram(model: Model, ids: Mapping[str, int] | None) -> models.Unigram:
    best = max(p.score for p in model.pieces if p.kind == NORMAL)
    scores = {}
    for piece in model.pieces:
        name = HIDDEN + piece.text if piece.kind == UNUSED else piece.text
        # the library always prefers what the user defined
        bonus = len(piece.text.encode()) * best - 0.1
        scores[name] = bonus if piece.kind == USER else piece.score
    if ids is None:
        return models.Unigram([*scores.items()], model.unk_id, model.byte_fallback)
    names = sorted(ids, key=ids.__getitem__)
    vocab = [(n, scores[n]) if n in scores else (HIDDEN + n, 0.0) for n in names]
    return models.Unigram(vocab, ids[model.pieces[model.unk_id].text], model.byte_fallback)


def _with_control(model: Model, ids: Mapping[str, int], control: Collection[str]) -> Model:
    """The model with the pieces that have an id, and with these control tokens."""
    if sorted(ids.values()) != [*range(len(ids))]:
        raise ValueError("the ids of vocab.json have holes")
    missing = [p.text for p in model.pieces if p.kind != CONTROL and p.text not in ids]
    if missing:
        raise ValueError(f"vocab.json lacks {len(missing)} pieces, such as {missing[0]!r}")
    known = {piece.text for piece in model.pieces}
    pieces = [piece for piece in model.pieces if piece.text in ids]
    pieces += [Piece(x, 0.0, CONTROL) for x in control if x in ids and x not in known]
    return dataclasses.replace(model, pieces=tuple(pieces))


def _bpe(model: Model, ids: Mapping[str, int] | None) -> models.BPE:
    kinds = {piece.kind for piece in model.pieces}
    if UNUSED in kinds:
        raise ValueError("a sentencepiece model of kind BPE with unused pieces is not supported")
    if USER in kinds and model.add_dummy_prefix:
        raise ValueError("a sentencepiece model of kind BPE with pieces of a user is not supported")
    own = {piece.text: i for i, piece in enumerate(model.pieces)}
    vocab = own if ids is None else {n if n in own else HIDDEN + n: i for n, i in ids.items()}
    scores = {p.text: p.score for p in model.pieces if p.kind == NORMAL}
    letters = {letter for text in scores for letter in text}
    if not letters <= scores.keys():
        raise ValueError("a sentencepiece model of kind BPE without its letters is not supported")
    merges: list[tuple[str, str]] = []
    # a piece is made of any two that give it, the best first
    for text in sorted(scores, key=lambda x: (-scores[x], own[x])):
        pairs = ((text[:i], text[i:]) for i in range(1, len(text)))
        merges += [pair for pair in pairs if pair[0] in scores and pair[1] in scores]
    return models.BPE(
        vocab,
        merges,
        unk_token=model.pieces[model.unk_id].text,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def _apart(model: Model) -> pre_tokenizers.PreTokenizer | None:
    """Takes apart what spells a control token or a byte: a Unigram of the other library finds these in text too."""
    pieces = [piece.text for piece in model.pieces if piece.kind in (NORMAL, USER)]
    control = [p.text for p in model.pieces if p.kind in (CONTROL, UNKNOWN, BYTE)]
    pattern, unsafe = vocabulary.cuts(control, pieces)
    if unsafe:
        raise ValueError(f"text that spells {unsafe[0]!r} cannot be told from this control token")
    return pre_tokenizers.Split(Regex(pattern), "merged_with_previous") if control else None
