"""BLEU of tokenised, lowercased text, as papers on Multi30k report it, beside that of sacrebleu's own tokenizer.

    pip install sacremoses
    jaxlm predict runs/de_en --data parallel:test.de.gz,test.en.gz --out predictions.jsonl
    python benchmarks/tokenised_bleu.py predictions.jsonl test.en.gz --language en

Moses's normalisation of punctuation and tokenizer (sacremoses), then BLEU-4 of the tokens. Prints a line of each with
its signature.
"""

from __future__ import annotations

import gzip
import json
import pathlib

import sacremoses
import tyro
from sacrebleu.metrics import BLEU


def main(
    predictions: tyro.conf.Positional[pathlib.Path],
    references: tyro.conf.Positional[pathlib.Path],
    language: str = "en",
) -> None:
    """Prints both scores.

    Args:
        predictions: JSON Lines of `jaxlm predict`.
        references: a text a line, in the same order; .gz: compressed.
        language: of the texts.
    """
    open_text = gzip.open if references.suffix == ".gz" else open
    with open_text(references, "rt", encoding="utf-8") as file:
        right = file.read().splitlines()
    lines = predictions.read_text(encoding="utf-8").splitlines()
    written = [json.loads(line)["text"] for line in lines]
    if len(written) != len(right):
        raise SystemExit(f"error: {len(written)} predictions and {len(right)} references")
    normaliser = sacremoses.MosesPunctNormalizer(lang=language)
    tokenizer = sacremoses.MosesTokenizer(lang=language)

    def tokens(text: str) -> str:
        text = normaliser.normalize(text.strip()).lower()
        return tokenizer.tokenize(text, escape=False, return_str=True)

    tokenised = BLEU(tokenize="none", lowercase=True, force=True)
    own = BLEU()
    texts = [[tokens(t) for t in texts] for texts in (written, right)]
    print(f"{tokenised.corpus_score(texts[0], [texts[1]])}  {tokenised.get_signature()}")
    print(f"{own.corpus_score(written, [right])}  {own.get_signature()}")


if __name__ == "__main__":
    tyro.cli(main)
