"""Documents per second of the document rules on one core, beside datatrove's filters on the same words.

    python benchmarks/refine.py [DOCUMENTS.jsonl ...] [--text-key text] [--language en] [--limit 500] [--rounds 3]
        [--spacy]

Without files: generated pages of prose, menus and repetition. Both sides run the chain GopherRepetition, GopherQuality,
C4, FineWeb with the same thresholds, words and sentences, in turn, `--rounds` times; what is printed is the median of
CPU seconds. The share of equal decisions counts documents that both keep with the same text or both drop by the same
stage. Each of our stages alone, as a recipe runs it, follows. `--spacy`: also datatrove with the words it ships with.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import multiprocessing
import pathlib
import platform
import random
import resource
import statistics
import time
from collections.abc import Sequence

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils import text as datatrove_text
from datatrove.utils.word_tokenizers import WordTokenizer

from jaxlm.refine import analysis, languages, words
from jaxlm.refine.c4 import C4
from jaxlm.refine.default_thresholds import THRESHOLDS
from jaxlm.refine.fineweb import FineWeb
from jaxlm.refine.language_rule import LanguageRule
from jaxlm.refine.lines import Lines
from jaxlm.refine.quality import Quality
from jaxlm.refine.repetition import Repetition

BATCH = 64
OURS, THEIRS, SPACY = "jaxlm", "datatrove, same words", "datatrove, spaCy"
# stage that dropped the document and its text; None and the text that is left
Decision = tuple[str | None, str]


class OurWords(WordTokenizer):
    """jaxlm's words and sentences for datatrove."""

    def word_tokenize(self, text):
        return words.split(text)

    def sent_tokenize(self, text):
        return words.sentences(text)

    def span_tokenize(self, text):
        ends = np.cumsum([len(sentence) for sentence in words.sentences(text)]).tolist()
        return list(zip([0, *ends[:-1]], ends))


def our_chain(language: str) -> list[LanguageRule]:
    """Rules by datatrove's conventions (its words for the alphabetic rule), with the language's thresholds."""
    given = THRESHOLDS.get(languages.code(language), {})
    stop_words = languages.conventions(language).stop_words
    return [
        Repetition(by_language=False, **given.get("repetition", {})),
        Quality(
            by_language=False,
            alphabetic="words",
            stop_words=stop_words,
            **given.get("quality", {}),
        ),
        C4(by_language=False),
        FineWeb(by_language=False, **given.get("fineweb", {})),
    ]


def their_chain(language: str, tokenizer: WordTokenizer | str) -> list:
    repetition, quality, _, fineweb = our_chain(language)
    top = tuple((n, getattr(repetition, f"max_top_{n}_gram")) for n in (2, 3, 4))
    duplicate = tuple((n, getattr(repetition, f"max_duplicate_{n}_grams")) for n in range(5, 11))
    return [
        GopherRepetitionFilter(language=tokenizer, top_n_grams=top, dup_n_grams=duplicate),
        GopherQualityFilter(
            language=tokenizer,
            min_doc_words=quality.min_words,
            max_doc_words=quality.max_words,
            min_avg_word_length=quality.min_mean_word_length,
            max_avg_word_length=quality.max_mean_word_length,
            # one threshold for both
            max_symbol_word_ratio=quality.max_hashes,
            max_non_alpha_words_ratio=quality.min_alphabetic_words,
            min_stop_words=quality.min_stop_words,
            stop_words=list(quality.stop_words),
        ),
        C4QualityFilter(language=tokenizer),
        FineWebQualityFilter(
            language=tokenizer,
            char_duplicates_ratio=fineweb.max_duplicate_line_characters,
            short_line_length=fineweb.short_line,
            new_line_ratio=float("inf"),
        ),
    ]


def run_ours(rules: Sequence[LanguageRule], texts: Sequence[str]) -> list[Decision]:
    """Batch by batch, stage by stage, as the pipeline does."""
    analysis._cached_analysis.cache_clear()
    decisions: list[Decision] = []
    for start in range(0, len(texts), BATCH):
        documents = [Document(text, "0") for text in texts[start : start + BATCH]]
        batch: list[Decision] = [(None, "")] * len(documents)
        left = list(range(len(documents)))
        for rule in rules:
            drops = rule.check_batch([documents[i] for i in left])
            for i, drop in zip(left, drops):
                if drop:
                    batch[i] = (rule.name, "")
            left = [i for i, drop in zip(left, drops) if not drop]
        for i in left:
            batch[i] = (None, documents[i].text)
        decisions += batch
    return decisions


def run_theirs(filters: Sequence, texts: Sequence[str]) -> list[Decision]:
    datatrove_text.split_into_parts.cache_clear()
    names = ("repetition", "quality", "c4", "fineweb")
    decisions: list[Decision] = []
    for text in texts:
        document = Document(text, "0")
        for name, one in zip(names, filters):
            if one.filter(document) is not True:
                decisions.append((name, ""))
                break
        else:
            decisions.append((None, document.text))
    return decisions


def cpu_seconds(run, *arguments) -> float:
    began = time.process_time()
    run(*arguments)
    return time.process_time() - began


def generated(number: int) -> list[str]:
    """Pages of 3 to 60 lines of made-up words and stop words; one in five repeats itself or is mostly a menu."""
    rng = random.Random(0)
    syllables = [
        "ba",
        "con",
        "der",
        "el",
        "fi",
        "gra",
        "hen",
        "il",
        "ku",
        "lor",
        "men",
        "no",
        "pra",
        "ti",
        "ver",
    ]
    made_up = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(5000)]
    weights = [1 / (rank + 10) for rank in range(len(made_up))]
    stop_words = languages.conventions("en").stop_words

    def sentence() -> str:
        chosen = rng.choices(made_up, weights, k=rng.randint(4, 20))
        chosen += rng.choices(stop_words, k=len(chosen) // 3)
        rng.shuffle(chosen)
        return " ".join(chosen).capitalize() + rng.choice("...?!")

    pages = []
    for i in range(number):
        lines: list[str] = []
        for _ in range(rng.randint(3, 60)):
            if i % 5 == 0 and rng.random() < 0.5:
                lines.append(
                    rng.choice([*lines, "Home", "3 likes", "Read more...", "Privacy policy"])
                )
            else:
                lines.append(" ".join(sentence() for _ in range(rng.randint(1, 5))))
        pages.append("\n".join(lines))
    return pages


def load(paths: Sequence[str], key: str, limit: int) -> list[str]:
    if not paths:
        return generated(limit)
    texts: list[str] = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            texts += [json.loads(line)[key] for line in file if line.strip()]
    return texts[:limit]


def peak_megabytes(side: str, options: argparse.Namespace, queue) -> None:
    """Peak memory of a process that runs one side, and before it has seen a document."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    texts = load(options.documents, options.text_key, options.limit)
    if side == OURS:
        run_ours(our_chain(options.language), texts)
    else:
        run_theirs(their_chain(options.language, OurWords()), texts)
    queue.put((before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def memory(side: str, options: argparse.Namespace) -> str:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak_megabytes, args=(side, options, queue))
    process.start()
    before, peak = queue.get()
    process.join()
    return f"{peak:.0f} ({before:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("documents", nargs="*")
    parser.add_argument("--text-key", default="text")
    parser.add_argument("--language", default="en")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spacy", action="store_true")
    options = parser.parse_args()
    texts = load(options.documents, options.text_key, options.limit)
    characters = sum(map(len, texts))

    ours = our_chain(options.language)
    sides = {
        OURS: (run_ours, ours),
        THEIRS: (run_theirs, their_chain(options.language, OurWords())),
    }
    if options.spacy:
        sides[SPACY] = (run_theirs, their_chain(options.language, options.language))
    decisions = {side: run(chain, texts) for side, (run, chain) in sides.items()}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side, (run, chain) in sides.items():
            seconds[side].append(cpu_seconds(run, chain, texts))

    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("datatrove", "numpy"))
    print(
        f"{len(texts)} documents ({options.language}), {characters / 1e6:.2f} million characters; one core of "
        f"{processor()}; Python {platform.python_version()}, {versions}; median of {options.rounds} rounds in turn\n"
    )
    print(
        "| chain | documents/s | MB characters/s | times | equal decisions | kept | peak MB (before) |"
    )
    print("|---|---|---|---|---|---|---|")
    reference = statistics.median(seconds[THEIRS])
    for side in sides:
        median = statistics.median(seconds[side])
        equal = statistics.mean(a == b for a, b in zip(decisions[side], decisions[OURS]))
        kept = sum(name is None for name, _ in decisions[side]) / len(texts)
        peak = memory(side, options) if side != SPACY else ""
        print(
            f"| {side} | {len(texts) / median:.0f} | {characters / median / 1e6:.2f} | {reference / median:.1f} "
            f"| {equal:.2%} | {kept:.1%} | {peak} |"
        )

    print("\n| stage alone, as in a recipe | documents/s | MB characters/s | dropped |")
    print("|---|---|---|---|")
    for rule in (Repetition(), Quality(), Lines(), C4(), FineWeb()):
        rule = dataclasses.replace(rule, language=options.language)
        times = [cpu_seconds(run_ours, [rule], texts) for _ in range(options.rounds)]
        median = statistics.median(times)
        dropped = sum(name is not None for name, _ in run_ours([rule], texts)) / len(texts)
        print(
            f"| {rule.name} | {len(texts) / median:.0f} | {characters / median / 1e6:.2f} | {dropped:.1%} |"
        )


def processor() -> str:
    """Name of the processor, where Linux tells it."""
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
