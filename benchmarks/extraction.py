"""How much of the article is extracted from pages, and how little else, beside the stored outputs of other programs.

    python benchmarks/extraction.py FOLDER [--extractors trafilatura resiliparse] [--bootstrap 1000]

FOLDER is laid out as github.com/scrapinghub/article-extraction-benchmark: html/<page>.html.gz, ground-truth.json
{page: {"articleBody": text}}, and reference_outputs/<program>.json of the same form. The measure is that benchmark's
(evaluate.py): a text is the bag of its runs of 4 words (`\\w+`, case kept; a shorter text is one run). Of a page, with
multiplicity: precision = shared runs / extracted runs, recall = shared runs / runs of the article. Precision and recall
are means over the pages (pages without an extracted run have no precision), F1 is the harmonic mean of these two means,
and ± is 1.96 standard deviations of 1,000 bootstrap samples of pages.

Rows: the stage `extraction` with URLs left in the text, as the articles and the other programs have them, and as
recipes run it, without them; then the pages that the line-wise corrections keep, before and after them; then the stored
outputs. Pages a second are per second of processor time, of worker and child together, without the child's start, so
that other programs on the machine do not count.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pathlib
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
from datatrove.data import Document

from jaxlm.refine.decoding import decode
from jaxlm.refine.extraction import Extraction
from jaxlm.refine.rule import Drop

try:
    from jaxlm.refine.lines import Lines
except ImportError:
    Lines = None

RUN = 4
WORD = re.compile(r"\w+")
# texts by page
Texts = Mapping[str, str]


def runs(text: str) -> Counter[tuple[str, ...]]:
    words = WORD.findall(text)
    count = max(1, len(words) - RUN + 1) if words else 0
    return Counter(tuple(words[i : i + RUN]) for i in range(count))


def overlap(article: str, text: str) -> tuple[float, float, float]:
    """Shared runs, runs of the article, and runs of the text."""
    wanted, found = runs(article), runs(text)
    return (wanted & found).total(), wanted.total(), found.total()


def scores(counts: np.ndarray) -> np.ndarray:
    """F1, precision and recall of pages [N, 3] of `overlap`."""
    shared, wanted, found = counts.T
    precision = (shared[found > 0] / found[found > 0]).mean()
    recall = (shared[wanted > 0] / wanted[wanted > 0]).mean()
    return np.array([2 * precision * recall / (precision + recall), precision, recall])


def row(name: str, articles: Texts, texts: Texts, samples: int, speed: str = "") -> str:
    """A line of the table, for the pages of `texts`."""
    counts = np.array([overlap(articles[page], text) for page, text in texts.items()])
    rng = np.random.default_rng(0)
    drawn = [scores(counts[rng.integers(0, len(counts), len(counts))]) for _ in range(samples)]
    cells = [
        f"{value:.3f} ± {1.96 * deviation:.3f}"
        for value, deviation in zip(scores(counts), np.std(drawn, axis=0))
    ]
    return f"| {name} | {len(counts)} | {' | '.join(cells)} | {speed} |"


def run(rule: Extraction, documents: list[Document]) -> tuple[list[Drop | None], float]:
    """The decisions, and seconds of processor time, of ended children too."""
    began = sum(os.times()[:4])
    drops = rule.check_batch(documents)
    rule.close()
    return drops, sum(os.times()[:4]) - began


def extracted(pages: Texts, extractor: str) -> tuple[dict[str, str], str]:
    """The text of each page with its URLs, "" if it is dropped; and pages a second."""

    def rule() -> Extraction:
        return Extraction(extractor=extractor, remove_urls=False)

    _, start_seconds = run(rule(), _documents({"": "<p>start</p>"}))
    documents = _documents(pages)
    drops, seconds = run(rule(), documents)
    for document, drop in zip(documents, drops):
        if drop is not None:
            print(f"{extractor}: {document.id[:8]} dropped: {drop.rule} {drop.value}")
    texts = {d.id: "" if drop else d.text for d, drop in zip(documents, drops)}
    return texts, f"{len(pages) / (seconds - start_seconds):.0f}"


def _documents(pages: Texts) -> list[Document]:
    return [Document(text=text, id=page, metadata={"html": True}) for page, text in pages.items()]


def corrected(texts: Texts) -> dict[str, str]:
    """What the line-wise corrections make of the texts that they keep."""
    documents = [Document(text=text, id=page, metadata={}) for page, text in texts.items() if text]
    drops = Lines().check_batch(documents)
    return {d.id: d.text for d, drop in zip(documents, drops) if drop is None}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--extractors", nargs="+", default=["trafilatura", "resiliparse"])
    parser.add_argument("--bootstrap", type=int, default=1000)
    options = parser.parse_args()

    def bodies(path: pathlib.Path) -> dict[str, str]:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            page: fields["articleBody"] or "" for page, fields in found.get("output", found).items()
        }

    articles = bodies(options.folder / "ground-truth.json")
    pages = {
        page: decode(gzip.decompress((options.folder / "html" / f"{page}.html.gz").read_bytes()))
        for page in articles
    }
    table = ["| texts | pages | F1 | precision | recall | pages/s |", "|---|---|---|---|---|---|"]
    for name in options.extractors:
        texts, speed = extracted(pages, name)
        table.append(row(f"{name}, with URLs", articles, texts, options.bootstrap, speed))
        texts = {page: Extraction().clean(text) for page, text in texts.items()}
        table.append(row(name, articles, texts, options.bootstrap))
        if Lines is not None:
            kept = corrected(texts)
            before = {page: texts[page] for page in kept}
            table.append(row(f"{name}, pages kept by lines", articles, before, options.bootstrap))
            table.append(row(f"{name}, after lines", articles, kept, options.bootstrap))
    for path in sorted((options.folder / "reference_outputs").glob("*.json")):
        found = bodies(path)
        texts = {page: found.get(page, "") for page in articles}
        table.append(row(f"stored: {path.stem}", articles, texts, options.bootstrap))
    print("\n".join(table))


if __name__ == "__main__":
    main()
