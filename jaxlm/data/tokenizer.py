"""Tokenizers: text to ids and back, loaded from the usual files or trained on a corpus.

`encode` never returns control tokens: "<eos>" in a text is encoded as plain text, and callers add control tokens by id.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, models, pre_tokenizers

from jaxlm.config.data import TokenizerConfig
from jaxlm.data import frames, tokenizer_config, tokenizer_files, vocabulary
from jaxlm.data.frames import Frame

# characters of a text that takes a while to encode
_LONG = 10_000
# tokens of the longest word
_LONGEST_WORD = 16

# role -> names of its token in the usual families, the most specific first: for files that do not say
_ROLES = {
    "pad": (
        "[PAD]",
        "<pad>",
        "<|pad|>",
        "<|padding|>",
        "<|finetune_right_pad_id|>",
        "<PAD>",
        "<｜▁pad▁｜>",
    ),
    "unk": ("[UNK]", "<unk>", "<|unk|>", "<UNK>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>", "<MASK_TOKEN>"),
    "bos": (
        "<bos>",
        "<s>",
        "<|begin_of_text|>",
        "<|startoftext|>",
        "<｜begin▁of▁sentence｜>",
        "<BOS_TOKEN>",
        "<|endoftext|>",
    ),
    "eos": (
        "<eos>",
        "</s>",
        "<|end_of_text|>",
        "<｜end▁of▁sentence｜>",
        "<EOS_TOKEN>",
        "<|endoftext|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|im_end|>",
    ),
    "cls": ("[CLS]", "<cls>", "<|cls|>"),
    "sep": ("[SEP]", "<sep>", "<|sep|>"),
}
_FALLBACK = {"bos": "cls", "cls": "bos", "eos": "sep", "sep": "eos"}


class Encoded(NamedTuple):
    """Token ids of a text, and the characters of the original text that they stand for."""

    # [n]
    ids: np.ndarray
    # [n, 2] int32: start and end of each token, without the spaces around it; empty for a token of spaces only. The
    # tokens of a character that was split into bytes all have its span.
    spans: np.ndarray


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A vocabulary and its text cleaning; `backend` is a tokenizer of the `tokenizers` library."""

    backend: tokenizers.Tokenizer
    # role -> name of its token, where the model's files say it; the others are known by their usual names
    roles: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    chat_template: tokenizer_config.Template | None = dataclasses.field(default=None, hash=False)
    # names of all tokens that end a text, if the model's files have several
    ends: tuple[str, ...] = ()
    # control tokens around texts of a model in the Hugging Face layout; None: [CLS] a [SEP] and [CLS] a [SEP] b [SEP]
    frame: Frame | None = None

    def __post_init__(self):
        self.backend.no_padding()
        self.backend.no_truncation()
        # text of users must not become a control token
        self.backend.encode_special_tokens = True

    def __reduce__(self):
        # unpickled by __init__, because the backend's pickle loses encode_special_tokens
        return Tokenizer, (self.backend, self.roles, self.chat_template, self.ends, self.frame)

    def encode(self, text: str, *, framed: bool = False) -> list[int]:
        """The ids of a text; `framed` adds the control tokens that the model's files put around a text."""
        with _panics_as_errors():
            ids = encoding_of(self.text_backend, text).ids
        if not framed:
            return ids
        frame = frames.of(self) if self.frame is None else self.frame
        return [*frame.before, *ids, *frame.after]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text in the smallest dtype that fits, computed on all cores."""
        with _panics_as_errors():
            encodings = self.text_backend.encode_batch_fast(
                [_encodable(text) for text in texts], add_special_tokens=False
            )
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoded]:
        """The ids of each text as `encode_batch` gives them, and which of its characters each of them stands for."""
        out: list[Encoded] = []
        # the library's results are large: not all of them at a time
        for part in (texts[i : i + 1024] for i in range(0, len(texts), 1024)):
            with _panics_as_errors():
                encodings = self.text_backend.encode_batch(
                    [_encodable(text) for text in part], add_special_tokens=False
                )
            for text, encoding in zip(part, encodings):
                spans = np.array(encoding.offsets, np.int32).reshape(-1, 2)
                out.append(
                    Encoded(np.array(encoding.ids, self.dtype), _without_spaces(text, spans))
                )
        return out

    @functools.cached_property
    def text_backend(self) -> tokenizers.Tokenizer:
        """The backend; where its vocabulary finds control tokens in text, one that cuts what spells them."""
        backend = self.backend
        if not isinstance(backend.model, models.Unigram | models.WordLevel | models.WordPiece):
            return backend
        vocab = {i: name for name, i in self.vocab.items()}
        control = [vocab[i] for i in self.special_ids - {self.unk_id}]
        found = [x for x in control if self.vocab[x] in self._ids_of_text(x)]
        if not found:
            return backend
        pieces = [name for name, i in self.vocab.items() if i not in self.special_ids]
        split = pre_tokenizers.Split(
            Regex(vocabulary.cuts(found, pieces)[0]), "merged_with_previous"
        )
        backend = tokenizers.Tokenizer.from_str(backend.to_str())
        backend.encode_special_tokens = True
        before = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
        backend.pre_tokenizer = pre_tokenizers.Sequence([*before, split])
        return backend

    def _ids_of_text(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_with_control(self, text: str) -> list[int]:
        """The ids of a text in which control tokens are spelled out; never for text from outside."""
        return self.offsets_with_control(text)[0]

    def offsets_with_control(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """As `encode_with_control`, and the characters of the text that each token stands for, start and end."""
        with _panics_as_errors():
            encoding = encoding_of(self._control_backend, text)
            return encoding.ids, encoding.offsets

    @functools.cached_property
    def _control_backend(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self.backend.to_str())

    @functools.cached_property
    def added_tokens(self) -> dict[str, AddedToken]:
        """The tokens that are cut out of a text before it is split, by name; not all are control tokens."""
        return {t.content: t for t in self.backend.get_added_tokens_decoder().values()}

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of ids; control tokens are skipped or written by name."""
        with _panics_as_errors():
            return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def unknown(self, text: str) -> list[str]:
        """The words of a text (of a vocabulary of characters: its characters) in which something becomes the token for
        unknown text; that token's own name is not one of them."""
        unk = self.unk_id
        if unk is None:
            return []
        backend, text = self.backend, _encodable(text)
        with _panics_as_errors():
            if backend.normalizer is not None:
                text = backend.normalizer.normalize_str(text)
            split = backend.pre_tokenizer
            words = list(text) if split is None else [w for w, _ in split.pre_tokenize_str(text)]
            name = backend.id_to_token(unk)
            return [
                word.strip(" ▁")
                for word in words
                if word != name and any(token.id == unk for token in backend.model.tokenize(word))
            ]

    def piece(self, i: int) -> str:
        """The text of one token for previews, a control token by name.

        Entries of WordPiece and of words hold no spaces: those that begin a word get one here, so that pieces read as
        the text.
        """
        text = self.decode([i], skip_special=False)
        model = self.backend.model
        if not isinstance(model, models.WordPiece | models.WordLevel):
            return text
        if self._word_edges[0][i]:
            return f" {text}"
        return text.removeprefix(getattr(model, "continuing_subword_prefix", ""))

    @functools.cached_property
    def vocab(self) -> dict[str, int]:
        """Piece, as it is written in the vocabulary -> id."""
        return self.backend.get_vocab(with_added_tokens=True)

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return max(self.vocab.values()) + 1

    @functools.cached_property
    def dtype(self) -> np.dtype:
        """uint16 if every id fits, else uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the control tokens: those marked as such, also by `load`, and those with a role in the files."""
        added = self.backend.get_added_tokens_decoder()
        marked = {i for i, token in added.items() if token.special}
        return frozenset(marked | {self.vocab[name] for name in self.roles.values()})

    @functools.cached_property
    def special_names(self) -> tuple[str, ...]:
        """The control tokens as they are spelled."""
        return tuple(name for name, i in self.vocab.items() if i in self.special_ids)

    @functools.cached_property
    def role_names(self) -> dict[str, str]:
        """Role -> name of its token: as the model's files say, if they say anything, or by the usual names."""
        if self.roles:
            return {role: name for role, name in self.roles.items() if role != "start"}
        usual = {role: self._usual(role) for role in _ROLES}
        return {role: name for role, name in usual.items() if name is not None}

    def _usual(self, role: str) -> str | None:
        return next((name for name in _ROLES.get(role, ()) if name in self.vocab), None)

    def _role(self, role: str) -> int | None:
        other = _FALLBACK.get(role, "")
        for name in (
            self.roles.get(role),
            self._usual(role),
            self.roles.get(other),
            self._usual(other),
        ):
            if name is not None:
                return self.vocab[name]
        return None

    @functools.cached_property
    def pad_id(self) -> int | None:
        """Id of the padding token, if there is one."""
        return self._role("pad")

    @functools.cached_property
    def unk_id(self) -> int | None:
        """Id of the token for text that the vocabulary cannot represent, if there is one."""
        return self._role("unk")

    @functools.cached_property
    def mask_id(self) -> int | None:
        """Id of the mask token of masked language modeling, if there is one."""
        return self._role("mask")

    @functools.cached_property
    def bos_id(self) -> int | None:
        """Id of the token before a text; that of [CLS] if there is no other."""
        return self._role("bos")

    @functools.cached_property
    def eos_id(self) -> int | None:
        """Id of the token after a text; that of [SEP] if there is no other."""
        return self._role("eos")

    @functools.cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Ids of all tokens that end a text; the eos token is the first of them."""
        first = () if self.eos_id is None else (self.eos_id,)
        return tuple(dict.fromkeys((*first, *(self.vocab[name] for name in self.ends))))

    @functools.cached_property
    def cls_id(self) -> int | None:
        """Id of the token whose vector represents the text; that of the bos token if there is no other."""
        return self._role("cls")

    @functools.cached_property
    def sep_id(self) -> int | None:
        """Id of the token between two texts; that of the eos token if there is no other."""
        return self._role("sep")

    @functools.cached_property
    def start_id(self) -> int | None:
        """Id of the token before a decoder's text: what the model was trained with, else bos, else padding."""
        if "start" in self.roles:
            return self.vocab[self.roles["start"]]
        return self.bos_id if self.bos_id is not None else self.pad_id

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer's JSON with sorted keys: equal if and only if two tokenizers are the same."""
        text = _canonical(self.backend)
        plain = Tokenizer(self.backend)
        named = {
            role: name
            for role, name in self.roles.items()
            if getattr(plain, f"{role}_id") != self.vocab[name]
        }
        if named:  # roles that the vocabulary does not show
            text += json.dumps(named, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @functools.cached_property
    def text_fingerprint(self) -> str:
        """The fingerprint without control tokens and templates: equal if two tokenizers encode text alike."""
        parts = json.loads(self.backend.to_str())
        for name in ("post_processor", "truncation", "padding"):
            parts.pop(name, None)
        parts["added_tokens"] = [t for t in parts["added_tokens"] if not t["special"]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def _word_edges(self) -> tuple[np.ndarray, np.ndarray]:
        return vocabulary.word_edges(self.backend, self.vocab, self.vocab_size)

    def word_starts(self, ids: np.ndarray, longest: int = _LONGEST_WORD) -> np.ndarray:
        """Whether a word begins at each of the ids [..., T], bool [..., T].

        More than `longest` tokens without a sign of a new word (Thai, DNA) are no word: each of them counts as one.

        Raises:
            ValueError: the tokens do not show where words begin.
        """
        begins, ends = self._word_edges
        starts = begins[ids]
        starts[..., 1:] |= ends[ids[..., :-1]]
        starts[..., :1] = True
        place = np.arange(ids.shape[-1])
        first = np.maximum.accumulate(np.where(starts, place, 0), axis=-1)
        # of each token the place where the next word begins
        after = np.where(starts, place, len(place))[..., ::-1]
        after = np.minimum.accumulate(after, axis=-1)[..., ::-1]
        following = np.concatenate([after[..., 1:], np.full_like(after[..., :1], len(place))], -1)
        return starts | (following - first > longest)

    @functools.cached_property
    def blanks(self) -> np.ndarray:
        """Whether each id is white space alone, bool [V]."""
        begins, ends = self._word_edges
        found = np.zeros(len(begins), bool)
        for i in np.flatnonzero(begins & ends):
            found[i] = self.decode([int(i)], skip_special=False).isspace()
        return found

    @functools.cached_property
    def _sentence_ends(self) -> tuple[np.ndarray, np.ndarray]:
        return vocabulary.sentence_ends(self.backend, self.vocab, self.vocab_size)

    def sentence_ends(self, ids: np.ndarray) -> np.ndarray:
        """Whether each of the ids [..., T] ends a sentence, bool [..., T].

        A sentence ends with a full stop, question or exclamation mark of any script and the quotes and brackets that
        close behind it, or with a newline.
        """
        ends, closes = self._sentence_ends
        result = ends[ids]
        # quotes in a token of their own; several follow one another rarely, so two rounds are enough
        for _ in range(2):
            moves = result[..., :-1] & closes[ids[..., 1:]]
            result[..., 1:] |= moves
            result[..., :-1] &= ~moves
        return result

    @functools.cached_property
    def not_text(self) -> frozenset[int]:
        """Ids below `vocab_size` that no text has: control tokens, and ids without a piece."""
        return self.special_ids | ({*range(self.vocab_size)} - {*self.vocab.values()})

    def with_tokens(self, names: Sequence[str]) -> Tokenizer:
        """This tokenizer with control tokens of these names; missing ones are added after all other tokens."""
        missing = [name for name in names if name not in self.vocab]
        if not missing:
            return self
        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        if len(self.vocab) < self.vocab_size:
            # the library counts entries, and would give ids of pieces if others are missing
            description = json.loads(backend.to_str())
            vocab = description["model"]["vocab"]
            if isinstance(vocab, dict):
                for i, name in enumerate(missing, self.vocab_size):
                    vocab[name] = i
                backend = tokenizers.Tokenizer.from_str(json.dumps(description))
        backend.add_special_tokens(missing)
        added = dataclasses.replace(self, backend=backend)
        assert min(added.ids_of(missing)) >= self.vocab_size, "the library gave an id of a piece"
        return added

    def ids_of(self, names: Sequence[str]) -> np.ndarray:
        """The ids of existing tokens by name [n] int32."""
        return np.array([self.vocab[name] for name in names], np.int32)

    def save(self, path: str | pathlib.Path) -> None:
        """Writes tokenizer.json to the file or folder `path`, and beside it declared roles and the chat template."""
        path = pathlib.Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        ids: dict[str, Any] = (
            {"eos_token_id": [self.vocab[x] for x in self.ends]} if self.ends else {}
        )
        if "start" in self.roles:
            ids["decoder_start_token_id"] = self.start_id
        tokenizer_config.write(path.parent, self.roles, self.chat_template, ids)
        temporary = path.with_name(path.name + ".tmp")
        # not through a link that somebody left
        temporary.unlink(missing_ok=True)
        temporary.write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        os.replace(temporary, path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoTokenizers(Tokenizer):
    """The tokenizer of a decoder, with that of an encoder that has another vocabulary."""

    encoder: Tokenizer

    @classmethod
    def of(cls, decoder: Tokenizer, encoder: Tokenizer) -> TwoTokenizers:
        """Puts two tokenizers together."""
        fields = {f.name: getattr(decoder, f.name) for f in dataclasses.fields(Tokenizer)}
        return cls(**fields, encoder=encoder)

    @property
    def decoder(self) -> Tokenizer:
        """The tokenizer of the decoder alone."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Tokenizer)}
        return Tokenizer(**fields)

    def __reduce__(self):
        return TwoTokenizers.of, (self.decoder, self.encoder)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of both fingerprints."""
        both = self.decoder.fingerprint + self.encoder.fingerprint
        return hashlib.sha256(both.encode()).hexdigest()

    def with_tokens(self, names: Sequence[str]) -> Tokenizer:
        """Control tokens of these names are added on both sides."""
        return TwoTokenizers.of(self.decoder.with_tokens(names), self.encoder.with_tokens(names))


def _canonical(backend: tokenizers.Tokenizer) -> str:
    return json.dumps(json.loads(backend.to_str()), sort_keys=True, ensure_ascii=False)


def _without_spaces(text: str, spans: np.ndarray) -> np.ndarray:
    """The spans without the spaces at their ends, which belong to the tokens of some families and not of others."""
    space = np.array([c.isspace() for c in text], bool)
    if not space.any():
        return spans
    index = np.arange(len(text))
    # the first position from i on that is no space, and the end of the last such position before i
    following = np.minimum.accumulate(np.where(space, len(text), index)[::-1])[::-1]
    before = np.maximum.accumulate(np.where(space, 0, index + 1))
    start = np.append(following, len(text))[spans[:, 0]]
    end = np.concatenate([[0], before])[spans[:, 1]]
    return np.stack(
        [np.minimum(start, spans[:, 1]), np.maximum(end, np.minimum(start, spans[:, 1]))], 1
    ).astype(np.int32)


def encoding_of(backend: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    """The text's encoding without control tokens."""
    if len(text) < _LONG:
        return backend.encode(_encodable(text), add_special_tokens=False)
    # only a batch lets other threads run meanwhile: a server has to answer others, too
    return backend.encode_batch([_encodable(text)], add_special_tokens=False)[0]


def _encodable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot represent, replaced by question marks."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()


@contextlib.contextmanager
def _panics_as_errors() -> Iterator[None]:
    """Turns a panic of the Rust code, which is not an Exception and so is not caught by handlers, into a ValueError."""
    try:
        yield
    except BaseException as e:
        if type(e).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizer fails on this text, is its file sound? {e}") from None


def load(path: str | pathlib.Path) -> Tokenizer:
    """Reads a tokenizer's file, or the folder of a model with one: see `tokenizer_files.NAMES`.

    Raises:
        ValueError: there is no such file, or it is not a tokenizer.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        files = [path / name for name in tokenizer_files.NAMES if (path / name).is_file()]
        if not files:
            raise ValueError(f"{path}: the folder has none of {', '.join(tokenizer_files.NAMES)}")
        path = files[0]
    if not path.is_file():
        raise ValueError(f"{path}: no such tokenizer file")
    try:
        with _panics_as_errors():
            config = tokenizer_config.read(path.parent)
            backend = tokenizer_files.read(path, config)
            tokenizer_config.add_tokens(backend, config)
            roles, ends = tokenizer_config.names_of_roles(backend, config, _usual_names())
            mark_special(backend, (*roles.values(), *ends))
            return Tokenizer(backend, roles, config.template, ends)
    except Exception as e:  # the library raises bare Exceptions for everything
        reason = " ".join(str(e).split())[:500]
        named = reason.startswith(str(path.parent))
        message = reason if named else f"{path}: not a tokenizer: {reason}"
        raise ValueError(message) from e


def mark_special(backend: tokenizers.Tokenizer, names: Iterable[str] = ()) -> None:
    """Marks tokens of these names as control tokens, and those of the usual names that are not pieces of text."""
    vocab = backend.get_vocab()
    marked = {t.content for t in backend.get_added_tokens_decoder().values() if t.special}
    named = {*names}
    for name in (named | _usual_names()) & set(vocab) - marked:
        # merges of BPE make pieces of text; a vocabulary of another kind matches whatever it lists
        is_text = (
            isinstance(backend.model, models.BPE)
            and name not in named
            and (backend.encode(name, add_special_tokens=False).ids == [vocab[name]])
        )
        if not is_text:
            backend.add_special_tokens([name])


def _usual_names() -> set[str]:
    return {name for group in _ROLES.values() for name in group}


def from_json(text: str) -> Tokenizer:
    """The tokenizer of a JSON string that `backend.to_str` returned."""
    return Tokenizer(tokenizers.Tokenizer.from_str(text))


def train(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Trains a tokenizer of `config.kind` on the texts; the same texts give the same fingerprint.

    Raises:
        ValueError: no text, or a vocabulary too small for the kind.
    """
    texts = [_encodable(text) for text in texts]
    if not any(texts):
        raise ValueError("data.tokenizer: no text to train on")
    with _panics_as_errors():
        backend = vocabulary.train(texts, config)
    if config.kind == "wordpiece":
        tokenizer_files.add_bert_template(backend)
    return Tokenizer(backend)
