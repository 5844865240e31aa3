"""What became of the pages of planted.py: the tables of `planted.py score`."""

from __future__ import annotations

import collections
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import planted_texts
import refined_files

# fault -> the stage that it is for, and the stages that may drop it too
STAGES: Mapping[str, tuple[str, ...]] = {
    "damaged": ("read",),
    "bad_domain": ("urls",),
    "bad_url_word": ("urls",),
    "other_language": ("language",),
    "repeated_lines": ("repetition", "fineweb"),
    "keyword_stuffing": ("repetition", "quality", "language", "fineweb", "c4"),
    "short": ("quality", "repetition", "extraction", "c4", "language"),
    "symbols": ("quality",),
    "bullets": ("quality", "fineweb"),
    "ellipses": ("quality", "fineweb"),
    "no_stop_words": ("quality", "repetition", "language", "fineweb", "c4"),
    "menu_page": ("lines", "fineweb", "quality", "repetition", "c4"),
    "program_code": ("c4",),
    "lorem_ipsum": ("c4",),
    "line_list": ("fineweb", "quality"),
    "near_duplicate": ("near_duplicates",),
    "duplicate_url": ("duplicate_urls",),
    "contamination": ("decontamination",),
}
# buckets and hashes of a bucket: RefinedWeb, appendix G.3.1; FineWeb, section 3.4
MINHASH = {"refinedweb": (450, 20), "fineweb": (14, 8)}
# words that a run needs to be contamination
_RUN = 13
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


class Refined(NamedTuple):
    """What a pipeline made of the pages."""

    funnel: Mapping[str, Any]
    # page -> text
    kept: Mapping[str, str]
    # page -> stage, rule
    dropped: Mapping[str, tuple[str, str]]

    @property
    def stages(self) -> list[str]:
        """Names of its stages."""
        return [stage["name"] for stage in self.funnel["stages"]]


def score(
    out: pathlib.Path,
    refined: pathlib.Path,
    /,
    *,
    buckets: int | None = None,
    rows: int | None = None,
) -> None:
    """Prints tables of what a refined folder has found.

    Args:
        out: the folder that `make` wrote.
        refined: the folder that `jaxlm refine --keep-dropped` wrote of OUT/pages.
        buckets: of MinHash; default: those of the recipe's paper.
        rows: hashes of a bucket.
    """
    truth = list(refined_files.records(out / "truth.jsonl"))
    texts = {r["id"]: r["text"] for r in refined_files.records(out / "texts.jsonl.gz")}
    result = read(refined)
    default = MINHASH.get(result.funnel["recipe"], MINHASH["refinedweb"])
    minhash = (buckets or default[0], rows or default[1])
    for title, table in tables(truth, texts, result, minhash):
        print(f"\n### {title}\n\n{table}")


def tables(
    truth: Sequence[Mapping[str, Any]],
    texts: Mapping[str, str],
    refined: Refined,
    minhash: tuple[int, int],
) -> Iterator[tuple[str, str]]:
    """(title, Markdown table) of what the pipeline has stages for."""
    yield "Pages", _account(truth, refined)
    yield "Stages", _stages(truth, refined)
    yield "Faults", _faults(truth, refined)
    has = refined.stages
    if "near_duplicates" in has:
        yield "Near-duplicates", _near_duplicates(truth, refined, minhash)
    if "duplicate_urls" in has:
        yield "Duplicate URLs", _groups_table(truth, refined, "duplicate_url", "duplicate_urls")
    if "substrings" in has:
        yield "Shared spans", _spans(truth, refined)
    if "lines" in has:
        yield "Boilerplate", _boilerplate(truth, refined)
    if "personal_data" in has:
        yield "Personal data", _personal_data(truth, refined)
    if "decontamination" in has:
        yield "Contamination", _contamination(truth, refined)
    yield "Texts of clean pages", _fidelity(truth, texts, refined)


def _account(truth: Sequence[Mapping[str, Any]], refined: Refined) -> str:
    """Whether every page went somewhere; what is damaged may have no id."""
    lost = [t for t in truth if t["id"] not in refined.kept and t["id"] not in refined.dropped]
    damaged = sum(t["fault"] == "damaged" for t in truth)
    first = refined.stages[0]
    rows = [
        ("pages", len(truth)),
        ("kept", len(refined.kept)),
        ("dropped", sum(t["id"] in refined.dropped for t in truth)),
        ("damaged pages made", damaged),
        (f"dropped by the stage {first}", _dropped_by_first(refined)),
        ("undamaged pages that are nowhere", sum(t["fault"] != "damaged" for t in lost)),
    ]
    return markdown(("", "pages"), [(name, f"{n:,}") for name, n in rows])


def _dropped_by_first(refined: Refined) -> int:
    rules = refined.funnel["stages"][0]["dropped"]
    return sum(rule["documents"] for rule in rules.values())


def _stages(truth: Sequence[Mapping[str, Any]], refined: Refined) -> str:
    rows = []
    for stage in refined.stages:
        here = [t for t in truth if _place(refined, t) == stage]
        count = len(here)
        right = sum(stage in STAGES.get(t["fault"], ()) and _due(t) for t in here)
        clean = sum(t["fault"] is None for t in here)
        own = [t for t in truth if STAGES.get(t["fault"], ("",))[0] == stage and _due(t)]
        earlier = sum(_place(refined, t) not in ("", stage) for t in own)
        found = sum(_place(refined, t) == stage for t in own)
        if stage == "read":
            # without an id
            count = _dropped_by_first(refined)
            right = found = min(count, len(own))
        pairs = stage in ("near_duplicates", "duplicate_urls")
        recall = "see below" if pairs else ratio(found, len(own) - earlier)
        rows.append(
            (
                stage,
                f"{count:,}",
                ratio(right, count),
                f"{clean:,}",
                f"{len(own):,}",
                f"{earlier:,}",
                recall,
            )
        )
    head = (
        "stage",
        "dropped",
        "precision",
        "clean pages",
        "planted for it",
        "dropped elsewhere",
        "recall of the rest",
    )
    return markdown(head, rows)


def _due(t: Mapping[str, Any]) -> bool:
    """Whether the page has to go."""
    return t["fault"] in STAGES and (t["fault"] != "contamination" or t["length"] >= _RUN)


def _place(refined: Refined, t: Mapping[str, Any]) -> str:
    return refined.dropped.get(t["id"], ("",))[0]


def _faults(truth: Sequence[Mapping[str, Any]], refined: Refined) -> str:
    rows = []
    by_fault = _by(truth, lambda t: t["fault"] or "clean")
    order = ["clean", *STAGES]
    for fault in sorted(by_fault, key=lambda of: order.index(of) if of in order else len(order)):
        pages = by_fault[fault]
        where = collections.Counter(refined.dropped.get(t["id"], ("", "")) for t in pages)
        kept = sum(t["id"] in refined.kept for t in pages)
        where.pop(("", ""), None)
        most = ", ".join(f"{stage} {rule} {n:,}" for (stage, rule), n in where.most_common(3))
        rest = sum(where.values()) - sum(n for _, n in where.most_common(3))
        most += f", others {rest:,}" if rest else ""
        asked = " or ".join(STAGES.get(fault, ("",))) or "none"
        rows.append((fault, f"{len(pages):,}", asked, f"{kept:,}", most))
    return markdown(("fault", "pages", "for stage", "kept", "dropped by"), rows)


def _near_duplicates(
    truth: Sequence[Mapping[str, Any]], refined: Refined, minhash: tuple[int, int]
) -> str:
    buckets, hashes = minhash
    rows = []
    by_target = _by([t for t in truth if t["fault"] == "near_duplicate"], lambda t: t["target"])
    for target, pages in sorted(by_target.items(), reverse=True):
        # pairs of which another stage has dropped one say nothing
        pairs = [
            pair
            for pair in _by(pages, lambda t: t["group"]).values()
            if all(_place(refined, t) in ("", "near_duplicates") for t in pair)
            and any(t["id"] in refined.kept or t["id"] in refined.dropped for t in pair)
        ]
        gone = [sum(_place(refined, t) == "near_duplicates" for t in pair) for pair in pairs]
        similar = [pair[0]["similarity"] for pair in pairs]
        promised = sum(1 - (1 - s**hashes) ** buckets for s in similar) / max(len(pairs), 1)
        mean = sum(similar) / max(len(pairs), 1)
        rows.append(
            (
                f"{target:g}",
                f"{mean:.3f}",
                f"{len(pairs):,}",
                ratio(sum(n > 0 for n in gone), len(pairs)),
                f"{promised:.1%}",
                f"{sum(n == 2 for n in gone):,}",
            )
        )
    head = (
        "similarity",
        "measured",
        "pairs",
        "found",
        f"promised by {buckets} x {hashes}",
        "both copies lost",
    )
    return markdown(head, rows)


def _groups_table(
    truth: Sequence[Mapping[str, Any]], refined: Refined, fault: str, stage: str
) -> str:
    pairs = _by([t for t in truth if t["fault"] == fault], lambda t: t["group"]).values()
    reached = [p for p in pairs if all(_place(refined, t) in ("", stage) for t in p)]
    gone = [sum(_place(refined, t) == stage for t in pair) for pair in reached]
    found, both = sum(n > 0 for n in gone), sum(n == 2 for n in gone)
    row = (f"{len(reached):,}", ratio(found, len(reached)), f"{both:,}")
    return markdown(("pairs", "found", "both copies lost"), [row])


def _spans(truth: Sequence[Mapping[str, Any]], refined: Refined) -> str:
    rows = []
    by_length = _by([t for t in truth if t["fault"] == "shared_span"], lambda t: t["length"])
    for length, pages in sorted(by_length.items()):
        groups = [
            pair
            for pair in _by(pages, lambda t: t["group"]).values()
            if all(t["id"] in refined.kept for t in pair)
        ]
        copies = [
            sum(_squeezed(t["span"]) in _squeezed(refined.kept[t["id"]]) for t in pair)
            for pair in groups
        ]
        rows.append(
            (
                f"{length}",
                f"{len(groups):,}",
                ratio(sum(n < 2 for n in copies), len(copies)),
                f"{sum(n == 0 for n in copies):,}",
                "cut" if length >= 50 else "whole",
            )
        )
    return markdown(("words", "pairs kept", "cut", "of them, no copy left", "should be"), rows)


def _boilerplate(truth: Sequence[Mapping[str, Any]], refined: Refined) -> str:
    found: dict[str, list[bool]] = {}
    for t in truth:
        if t["fault"] == "boilerplate" and t["id"] in refined.kept:
            lines = set(refined.kept[t["id"]].split("\n"))
            for line in t["lines"]:
                kind = re.sub(r"\d+", "N", line) if len(line) > 5 else line
                found.setdefault(kind, []).append(line not in lines)
    rows = [(f"`{line}`", f"{len(gone):,}", ratio(sum(gone), len(gone))) for line, gone in found.items()]  # fmt: skip
    return markdown(("line", "on kept pages", "taken out"), rows)


def _personal_data(truth: Sequence[Mapping[str, Any]], refined: Refined) -> str:
    pages = [t for t in truth if t["fault"] == "personal_data" and t["id"] in refined.kept]
    rows = []
    for kind, of in sorted(_by(pages, lambda t: t["kind"]).items()):
        gone = sum(t["item"] not in refined.kept[t["id"]] for t in of)
        rows.append((kind, "replaced" if of[0]["valid"] else "kept", f"{len(of):,}", ratio(gone, len(of))))  # fmt: skip
    return markdown(("kind", "should be", "on kept pages", "replaced"), rows)


def _contamination(truth: Sequence[Mapping[str, Any]], refined: Refined) -> str:
    rows = []
    by_length = _by([t for t in truth if t["fault"] == "contamination"], lambda t: t["length"])
    for length, pages in sorted(by_length.items()):
        reached = [t for t in pages if _place(refined, t) in ("", "decontamination")]
        gone = sum(_place(refined, t) == "decontamination" for t in reached)
        should = "dropped" if length >= _RUN else "kept"
        rows.append((f"{length}", f"{len(reached):,}", ratio(gone, len(reached)), should))
    return markdown(("words in a row", "pages that reached it", "dropped", "should be"), rows)


def _fidelity(
    truth: Sequence[Mapping[str, Any]], texts: Mapping[str, str], refined: Refined
) -> str:
    """Of clean pages that were kept: how many words of the text are left, and how many are not of it."""
    same = pages = left = there = right = 0
    for t in truth:
        if t["fault"] is None and t["id"] in refined.kept:
            before = collections.Counter(planted_texts.words(texts[t["id"]]))
            after = collections.Counter(planted_texts.words(refined.kept[t["id"]]))
            both = (before & after).total()
            pages += 1
            same += before == after
            left, there, right = left + before.total(), there + after.total(), right + both
    row = (f"{pages:,}", ratio(same, pages), ratio(right, there), ratio(right, left))
    head = ("clean pages kept", "with the same words", "precision of words", "recall of words")
    return markdown(head, [row])


# ---- files


def read(folder: pathlib.Path) -> Refined:
    """A folder that `jaxlm refine --keep-dropped` wrote."""
    funnel = refined_files.funnel(folder)
    dropped = {_id(r["id"]): (r["stage"], r["rule"]) for r in refined_files.dropped(folder)}
    return Refined(funnel, {_id(r["id"]): r["text"] for r in refined_files.kept(folder)}, dropped)


def _id(name: str) -> str:
    found = _UUID.search(name)
    return found[0] if found else name


# ---- tables


def _by(pages: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    out: dict[Any, list[Any]] = {}
    for page in pages:
        out.setdefault(key(page), []).append(page)
    return out


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def ratio(part: int, whole: int) -> str:
    """A fraction with its whole, so that few are seen to be few."""
    return f"{part / whole:.1%} of {whole:,}" if whole else "of none"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
