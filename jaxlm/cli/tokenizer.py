"""`jaxlm tokenizer train`: trains a tokenizer."""

from __future__ import annotations

import dataclasses

from jaxlm.cli.arguments import OutFile, check_file, check_not_read, parse
from jaxlm.config import DataConfig
from jaxlm.config.disk import naming


def run(argv: list[str]) -> None:
    """Trains a tokenizer as the arguments say."""
    if not argv or argv[0] not in ("train", "-h", "--help"):
        raise ValueError("usage: jaxlm tokenizer train OUT.json [--data.train SOURCE ...]")
    rest = argv[1:] if argv[0] == "train" else ["--help"]
    parse(train_tokenizer, rest, "jaxlm tokenizer train")


def train_tokenizer(out: OutFile, /, data: DataConfig = DataConfig()) -> None:
    """Trains a tokenizer on the training sources and writes it as a tokenizer.json.

    Args:
        out: file to write.
        data: sources, and under `tokenizer` the kind, size and cleaning.
    """
    from jaxlm.data import sources, tokenizer

    if data.tokenizer.path is not None:
        raise ValueError(
            "data.tokenizer.path names a tokenizer that exists: leave it out to train one"
        )
    check_file(out)
    check_not_read(out, *data.train)
    documents = sources.load_texts(dataclasses.replace(data, validation_fraction=0.0), "train")
    print(f"{len(documents):,} documents ({documents.counts})")
    trained = tokenizer.train(documents.texts, data.tokenizer)
    with naming(out):
        trained.save(out)
    sample = " ".join(documents.texts[0][:2000].split())[:200]
    pieces = [trained.piece(i) for i in trained.encode(sample)]
    print("for example:", "|".join(pieces))
    print(f"{trained.vocab_size:,} entries in {out}")
