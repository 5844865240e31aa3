"""Reads the files of tokenizers.

tokenizer.json has everything. vocab.txt (WordPiece), vocab.json with merges.txt (GPT-2), a model of sentencepiece, and
vocab.json with such a model (Marian, M2M100) have only the vocabulary: how a text is cleaned and which ids are moved is
in the code of a class of transformers, so that a class that is not known here is refused.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import warnings

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from jaxlm.config import json_text
from jaxlm.data import sentencepiece_model
from jaxlm.data.sentencepiece_model import CONTROL, UNKNOWN, Piece
from jaxlm.data.tokenizer_config import Config

_MODELS = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
# files of a folder, the first that exists is read
# far more than any vocabulary has
_MOST_IDS = 1 << 24
NAMES = ("tokenizer.json", "vocab.txt", "vocab.json", *_MODELS)
# files of tokenizers that are not read
UNREAD = (
    *("tekken.json", "bpe.codes", "spm.model", "dict.txt", "vocab.bpe", "source.spm"),
    *("tokenizer.tiktoken", "qwen.tiktoken", "sentencepiece.model", "spm_char.model"),
)
# classes that read the same files but split text in another way
_OTHER_WORDPIECE = {
    *("BertJapaneseTokenizer", "BertweetTokenizer", "PhobertTokenizer", "EsmTokenizer"),
    *("RoFormerTokenizer", "CpmAntTokenizer", "BasicTokenizer"),
}
_LIKE_GPT2 = {
    *(
        "",
        "GPT2Tokenizer",
        "RobertaTokenizer",
        "BartTokenizer",
        "LongformerTokenizer",
        "LEDTokenizer",
    ),
    *(
        "CodeGenTokenizer",
        "BlenderbotTokenizer",
        "DebertaTokenizer",
        "MvpTokenizer",
        "WhisperTokenizer",
    ),
    *("PreTrainedTokenizer", "TokenizersBackend", "GPTNeoXTokenizer"),
}
# classes whose ids are those of the sentencepiece model, and those that move them
_LIKE_SENTENCEPIECE = {
    *("", "LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "T5Tokenizer", "MT5Tokenizer"),
    *("PreTrainedTokenizer", "TokenizersBackend", "XLMRobertaTokenizer"),
}
_WITH_VOCAB = {"", "MarianTokenizer", "M2M100Tokenizer", "PreTrainedTokenizer", "TokenizersBackend"}


def read(path: pathlib.Path, config: Config) -> tokenizers.Tokenizer:
    """The tokenizer of a file; `config` has the files beside it.

    Raises:
        ValueError: not such a file, or a kind that is not supported.
    """
    if path.name == "vocab.json":
        merges = path.with_name("merges.txt").is_file()
        files = [path.with_name(n) for n in ("source.spm", "sentencepiece.bpe.model")]
        model = next((x for x in files if x.is_file()), None)
        if model is not None and not merges:
            return _read_sentencepiece_with_vocab(path, model, config)
        return _read_gpt2(path, config)
    if path.suffix in (".model", ".spm"):
        return _read_sentencepiece(path, config)
    if path.suffix == ".txt":
        return _read_wordpiece(path, config)
    _check_ids(path)
    return tokenizers.Tokenizer.from_file(str(path))


def _check_ids(path: pathlib.Path) -> None:
    """Raises ValueError for ids for which the library would reserve all memory, and more."""
    try:
        description = json_text.read_object(path)
    except ValueError as e:
        raise ValueError(f"{path}: not a tokenizer: {str(e).removeprefix(f'{path}: ')}") from e
    model = description.get("model")
    if not isinstance(model, dict):
        raise ValueError(f"{path}: not a tokenizer: model is not an object")
    vocab = model.get("vocab")
    ids = list(vocab.values()) if isinstance(vocab, dict) else []
    added = description.get("added_tokens")
    ids += [x.get("id") for x in added if isinstance(x, dict)] if isinstance(added, list) else []
    largest = max((i for i in ids if isinstance(i, int)), default=0)
    if largest >= _MOST_IDS:
        raise ValueError(f"{path}: has the id {largest}; ids must be below {_MOST_IDS}")


def _flag(config: Config, name: str, default: bool | None) -> bool | None:
    value = config.settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(
            f"{config.folder / 'tokenizer_config.json'}: {name}={value!r} is not true or false"
        )
    return default if value is None else value


def _read_wordpiece(path: pathlib.Path, config: Config) -> tokenizers.Tokenizer:
    if config.tokenizer_class in _OTHER_WORDPIECE:
        raise ValueError(
            f"{path}: {config.tokenizer_class} is not supported, only BERT's WordPiece"
        )
    pieces = path.read_text(encoding="utf-8").split("\n")
    vocab = {piece.rstrip("\r"): i for i, piece in enumerate(pieces) if piece.rstrip("\r")}
    unknown = config.roles.get("unk", "[UNK]")
    if unknown not in vocab:
        raise ValueError(
            f"{path}: no line {unknown}; a WordPiece vocabulary has one piece per line"
        )
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=str(unknown)))
    # a cased vocabulary has pieces with capitals, besides names such as [unused1] and <S>
    cased = any(p[0] not in "[<" and re.search("[A-Z]", p) for p in vocab)
    has_file = bool(config.settings)
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=bool(_flag(config, "do_lower_case", True if has_file else not cased)),
        strip_accents=_flag(config, "strip_accents", None),
        handle_chinese_chars=bool(_flag(config, "tokenize_chinese_chars", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    add_bert_template(backend)
    return backend


def _read_gpt2(path: pathlib.Path, config: Config) -> tokenizers.Tokenizer:
    merges = path.with_name("merges.txt")
    if not merges.is_file():
        raise ValueError(f"{path}: merges.txt is missing in the same folder, and so is source.spm")
    if config.tokenizer_class not in _LIKE_GPT2:
        raise ValueError(
            f"{path}: {config.tokenizer_class} is not supported without a tokenizer.json, which transformers writes"
        )
    model = models.BPE.from_file(str(path), str(merges))
    backend = tokenizers.Tokenizer(model)
    if any(piece.endswith("</w>") for piece in backend.get_vocab()):
        raise ValueError(
            f"{path}: a vocabulary with </w> is not supported without a tokenizer.json"
        )
    space = bool(_flag(config, "add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    return backend


def _read_sentencepiece(path: pathlib.Path, config: Config) -> tokenizers.Tokenizer:
    name = config.tokenizer_class or _CLASSES.get(config.model_type, "")
    if name not in _LIKE_SENTENCEPIECE or config.model_type in ("albert", "xlnet", "pegasus"):
        raise ValueError(
            f"{path}: {name or config.model_type} is not supported without a tokenizer.json, which transformers writes"
        )
    model = sentencepiece_model.read(path)
    extra: list[str] = []
    if name == "XLMRobertaTokenizer":
        first = (("<s>", CONTROL), ("<pad>", CONTROL), ("</s>", CONTROL), ("<unk>", UNKNOWN))
        moved = (*(Piece(x, 0.0, kind) for x, kind in first), *model.pieces[3:])
        model = dataclasses.replace(model, pieces=moved)
        extra = ["<mask>"]
    elif name in ("T5Tokenizer", "MT5Tokenizer"):
        count = config.settings.get("extra_ids", 100 if name == "T5Tokenizer" else 0)
        extra = [f"<extra_id_{i}>" for i in range(count - 1, -1, -1)]
    try:
        backend = sentencepiece_model.build(model)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    backend.add_special_tokens([x for x in extra if backend.token_to_id(x) is None])
    return backend


# model_type -> class, for folders without a tokenizer_config.json
_CLASSES = {
    "t5": "T5Tokenizer",
    "mt5": "MT5Tokenizer",
    "llama": "LlamaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "mbart": "MBartTokenizer",
}


def _read_sentencepiece_with_vocab(
    path: pathlib.Path, model: pathlib.Path, config: Config
) -> tokenizers.Tokenizer:
    if config.tokenizer_class not in _WITH_VOCAB:
        raise ValueError(
            f"{path}: {config.tokenizer_class} is not supported without a tokenizer.json, which transformers writes"
        )
    ids = json_text.read_object(path)
    if not all(isinstance(i, int) for i in ids.values()):
        raise ValueError(f"{path}: not an object of pieces and ids")
    target = path.with_name("target.spm")
    if target.is_file() and target.read_bytes() != model.read_bytes():
        warnings.warn(
            f"{path.parent}: texts are split by {model.name}, targets too: {target.name} is not used",
            stacklevel=2,
        )
    # the code of the language to translate to is written in front of a text
    languages = [name for name in ids if re.fullmatch(r">>[^<>]+<<", name)]
    control = {"<pad>", "<s>", "</s>", "<unk>", *map(str, config.roles.values()), *config.added}
    parsed = sentencepiece_model.read(model)
    try:
        return sentencepiece_model.build(parsed, ids, control, languages)
    except ValueError as e:
        raise ValueError(f"{model}: {e}") from e


def add_bert_template(backend: tokenizers.Tokenizer) -> None:
    """Adds a template, by which other programs add [CLS] and [SEP] as BERT does; `encode` does not use it."""
    tokens = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    if all(i is not None for _, i in tokens):
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=tokens
        )
