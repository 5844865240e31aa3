"""How much of what should go does a refining pipeline find, and what does it take besides: pages with known faults.

    python benchmarks/planted.py make runs/planted --texts data/wiki_c4_demo data/imdb_small/unlabelled.jsonl.gz \\
        --others data/cmrc2018/cmrc2018_dev.json
    jaxlm refine refinedweb runs/planted/pages runs/planted/refined --keep-dropped
    python benchmarks/planted.py score runs/planted runs/planted/refined

`make` writes pages of real texts, each with no fault or with one: OUT/pages/ (the input: JSONL, or WARC with HTML
around the texts), OUT/truth.jsonl (id, url, fault and its details), OUT/texts.jsonl.gz (the text of each page, without
HTML), OUT/evaluation.jsonl (what decontamination is to find) and OUT/held_out.jsonl (clean texts that are on no page).
The same --seed makes the same files. `score` prints Markdown tables: precision and recall of each stage, each fault,
near-duplicates beside what MinHash promises at their similarity, spans, lines, personal data, contamination.

Texts have faults of their own, so that precision is a lower bound. Clean pages share no run of 24 words.
"""

from __future__ import annotations

import functools
import gzip
import io
import itertools
import json
import pathlib
import random
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import planted_faults
import planted_score
import planted_texts
import planted_warc
import tyro
from planted_faults import PHRASES, Phrases

# of 20,000 pages; pairs are two pages each; the rest are clean
PAIRS = {
    **{("near_duplicate", s): 120 for s in planted_faults.SIMILARITIES},
    **{("shared_span", n): 60 for n in planted_faults.SPANS},
    ("duplicate_url", 0): 150,
}
SINGLE = {
    "bad_domain": 300,
    "bad_url_word": 200,
    "other_language": 1600,
    "repeated_lines": 400,
    "keyword_stuffing": 400,
    "short": 400,
    "symbols": 200,
    "bullets": 200,
    "ellipses": 200,
    "no_stop_words": 300,
    "menu_page": 500,
    "program_code": 150,
    "lorem_ipsum": 100,
    "line_list": 200,
    "boilerplate": 800,
    "damaged": 200,
    "truncated": 100,
}
PERSONAL_DATA, CONTAMINATION = 50, 40
HELD_OUT, EVALUATION = 400, 30
# words of a text that a pair or a fault within the text is made of
LONG = 120


def make(
    out: pathlib.Path,
    /,
    *,
    texts: tuple[pathlib.Path, ...],
    others: tuple[pathlib.Path, ...] = (),
    pages: int = 20_000,
    faults: float = 1.0,
    format: Literal["jsonl", "warc"] = "jsonl",
    language: Literal["en", "zh"] = "en",
    seed: int = 0,
) -> None:
    """Makes pages with known faults.

    Args:
        out: an empty folder.
        texts: files or folders of clean texts (JSONL, JSON, TSV, TXT, also .gz).
        others: texts in languages that are to be dropped.
        pages: how many.
        faults: how many times as many pages with each fault; 1 leaves half of the pages clean, 1.9 hardly any.
        format: of the pages.
        language: of the texts; boilerplate, menus and spam are in it.
        seed: of everything that is random.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: is not empty; name another folder")
    base, other = planted_texts.load(texts), planted_texts.load(others)
    maker = Maker(base, other, PHRASES[language], language, random.Random(seed))
    maker.fill(pages, faults)
    out.mkdir(parents=True, exist_ok=True)
    write(maker, out, format, seed)


class Maker:
    """Takes texts, each once, and makes pages of them."""

    def __init__(
        self,
        texts: list[str],
        others: list[str],
        phrases: Phrases,
        language: str,
        rng: random.Random,
    ) -> None:
        rng.shuffle(texts)
        self.rng, self.phrases, self.language = rng, phrases, language
        num = min(HELD_OUT, len(texts) // 10)
        self.held_out, texts = texts[:num], texts[num:]
        num = min(EVALUATION, max(len(texts) // 10, 1))
        self.evaluation, texts = texts[:num], texts[num:]
        lengths = [len(planted_texts.words(text)) for text in texts]
        # what needs long texts takes them from the front
        self.texts = [t for t, n in zip(texts, lengths) if n >= LONG]
        self.shorter = [t for t, n in zip(texts, lengths) if n < LONG]
        self.others = others
        self.vocabulary = sorted({w for text in texts[:500] for w in planted_texts.words(text)})
        self.made: list[dict[str, Any]] = []

    def take(self, *, long: bool = False) -> str:
        """A text that is on no page yet."""
        if not long and self.shorter:
            return self.shorter.pop()
        if not self.texts:
            raise ValueError(
                f"--texts: more texts are needed after {len(self.made):,} pages; name more files, or fewer --pages"
            )
        return self.texts.pop()

    def add(self, text: str, fault: str | None, **details: Any) -> None:
        """A page."""
        i = len(self.made)
        page = {"id": str(uuid.UUID(int=self.rng.getrandbits(128), version=4)), "text": text}
        page["url"] = details.pop("url", f"https://www.example.org/pages/{i:06d}.html")
        self.made.append(page | {"fault": fault, "language": self.language} | details)

    def fill(self, pages: int, faults: float) -> None:
        """Makes all pages, in random order."""
        part = lambda count: max(1, round(count * faults * pages / 20_000))
        for (fault, size), count in PAIRS.items():
            for pair in range(part(count)):
                getattr(self, fault)(size, f"{fault}-{size}-{pair}")
        for fault, count in SINGLE.items():
            if fault != "other_language" or self.others:
                for i in range(part(count)):
                    self.single(fault, i)
        for kind, (valid, item) in planted_faults.PERSONAL_DATA.items():
            for _ in range(part(PERSONAL_DATA)):
                value = item(self.rng)
                line = planted_faults.personal_data_line(value, self.phrases)
                text = planted_faults.insert(self.take(long=True), line, self.rng)
                self.add(text, "personal_data", kind=kind, valid=valid, item=value)
        for length in planted_faults.CONTAMINATIONS:
            for _ in range(part(CONTAMINATION)):
                self.contamination(length)
        if len(self.made) > pages:
            raise ValueError(
                f"--pages {pages}: the faults need {len(self.made)}; more pages, or lower --faults"
            )
        while len(self.made) < pages:
            self.add(self.take(), None)
        self.rng.shuffle(self.made)

    def near_duplicate(self, similarity: float, group: str) -> None:
        first = self.take(long=True)
        second = planted_faults.near_duplicate(first, similarity, self.vocabulary, self.rng)
        measured = round(planted_faults.jaccard(first, second), 4)
        for text in (first, second):
            self.add(text, "near_duplicate", group=group, target=similarity, similarity=measured)

    def shared_span(self, length: int, group: str) -> None:
        found = None
        while found is None:
            donor = ""
            while len(planted_texts.words(donor)) < length:
                donor += "\n" + self.rng.choice(self.texts)
            # the donor's own page would share the span
            self.texts = [text for text in self.texts if text not in donor]
            pair = (self.take(long=True), self.take(long=True))
            found = planted_faults.shared_span(pair, donor, length, self.rng)
        for text in found[:2]:
            self.add(text, "shared_span", group=group, length=length, span=found[2])

    def duplicate_url(self, _: int, group: str) -> None:
        url = f"https://www.example.org/twice/{group}.html"
        for _ in range(2):
            self.add(self.take(), "duplicate_url", group=group, url=url)

    def single(self, fault: str, i: int) -> None:
        """A page with a fault of its own."""
        rng, phrases = self.rng, self.phrases
        if fault == "bad_domain":
            host = rng.choice(bad_domains())
            # a listed domain is listed with all of its hosts, a listed host is not
            www = "www." if host.count(".") == 1 else ""
            self.add(self.take(), fault, url=f"https://{www}{host}/pages/{i}.html")
        elif fault == "bad_url_word":
            word = rng.choice(bad_words())
            self.add(self.take(), fault, url=f"https://www.example.org/{word}/{i}.html")
        elif fault == "other_language":
            text = self.others[i % len(self.others)]
            if i >= len(self.others):
                # so that it is no duplicate
                text = "\n".join(rng.sample(text.split("\n"), len(text.split("\n")))) + f" {i}"
            self.add(text, fault, language="other")
        elif fault == "boilerplate":
            lines = rng.sample(phrases.boilerplate, 2)
            text = self.take(long=True)
            for line in lines:
                text = planted_faults.insert(text, line, rng)
            self.add(text, fault, lines=lines)
        elif fault in ("damaged", "truncated"):
            text = self.take()
            self.add(text[: len(text) * 3 // 4] if fault == "truncated" else text, fault)
        else:
            change = planted_faults.PAGES[fault]
            self.add(change(self.take(long=True), phrases, rng), fault)

    def contamination(self, length: int) -> None:
        source = self.rng.choice(self.evaluation)
        of = planted_texts.words(source)
        start = self.rng.randrange(max(len(of) - length, 1))
        run = of[start : start + length]
        line = self.phrases.space.join(run) + ("。" if self.phrases.space == "" else ".")
        text = planted_faults.insert(self.take(long=True), line, self.rng)
        self.add(text, "contamination", length=len(run), run=line)


@functools.cache
def bad_domains(most: int = 200_000, every: int = 100) -> list[str]:
    """Some of the hosts and domains of the block-list inside datatrove."""
    with tarfile.open(_assets() / "url_filterblacklistsv0_3_0.tar.gz") as archive:
        for member in archive:
            if pathlib.PurePath(member.name).name == "domains":
                stream = archive.extractfile(member)
                assert stream is not None
                lines = io.TextIOWrapper(stream, encoding="utf-8", errors="ignore")
                found = [line.strip() for line in itertools.islice(lines, 0, most, every)]
                return [host for host in found if host.isascii()]
    raise ValueError("datatrove's list of domains has another layout than that of 0.10.1")


@functools.cache
def bad_words() -> list[str]:
    """Words of which datatrove allows none in a URL."""
    lines = (_assets() / "banned_words.txt").read_text(encoding="utf-8").split()
    return [word for word in lines if word.isascii() and word.isalnum()]


def _assets() -> pathlib.Path:
    from datatrove.utils._import_utils import ASSETS_PATH

    return pathlib.Path(ASSETS_PATH)


# ---- files


def write(maker: Maker, out: pathlib.Path, format: str, seed: int) -> None:
    """The pages, the truth about them, their texts, and what was kept apart."""
    made = maker.made
    _lines(out / "truth.jsonl", [{k: v for k, v in p.items() if k != "text"} for p in made])
    _lines(out / "texts.jsonl.gz", [{"id": p["id"], "text": p["text"]} for p in made])
    _lines(out / "evaluation.jsonl", [{"text": text} for text in maker.evaluation])
    _lines(out / "held_out.jsonl", [{"text": text} for text in maker.held_out])
    (out / "pages").mkdir(exist_ok=True)
    if format == "jsonl":
        data = gzip.compress(b"".join(_json_lines(made)), 1, mtime=0)
        (out / "pages" / "00000.jsonl.gz").write_bytes(data)
    else:
        with (out / "pages" / "00000.warc.gz").open("wb") as f:
            f.writelines(planted_warc.records(made, maker.phrases, random.Random(seed)))


def _json_lines(made: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    for page in made:
        line = json.dumps({k: page[k] for k in ("id", "url", "text")}, ensure_ascii=False)
        yield (line[: len(line) // 2] if page["fault"] == "damaged" else line).encode() + b"\n"


def _lines(path: pathlib.Path, values: Sequence[Mapping[str, Any]]) -> None:
    data = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()
    path.write_bytes(gzip.compress(data, 1, mtime=0) if path.suffix == ".gz" else data)


def main() -> None:
    app = tyro.extras.SubcommandApp()
    app.command(make)
    app.command(planted_score.score, name="score")
    app.cli()


if __name__ == "__main__":
    main()
