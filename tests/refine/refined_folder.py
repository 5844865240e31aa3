"""A finished folder of `jaxlm refine` with made-up documents, for tests and pictures of its report."""

import json
import pathlib

import zstandard

EN = (
    "The ferry leaves the harbour at seven every morning, and by noon the market on the far side of the bay is full "
    "of people who came for fish, for news or for the view. {0}\n\nNobody remembers who built the lighthouse. The "
    "council keeps a plan from 1874 that shows it with two storeys, although it has three. {0}\n"
)
ZH = "清晨七点，渡船离开码头，中午时分，海湾对岸的集市上已经挤满了人。{0}\n"
ZH += "没有人记得灯塔是谁建的，市政厅保存着一张一八七四年的图纸。\n"
MENU = "Home\nAbout us\nShop\nContact\nLog in\n3 likes\nShare on Facebook\n"

# stage, source, seconds, fraction of the bytes that is taken out of kept documents, rule -> (fraction of what came in,
# value, threshold, text)
STAGES = (
    ("read", "", 9.4, 0.0, {"damaged": (0.004, "gzip: invalid distance", "a whole record", "")}),
    (
        "urls",
        "RefinedWeb, section 3.1 and appendix G.1",
        1.9,
        0.0,
        {
            "domain": (0.015, "casino-online.example", "not listed", MENU),
            "soft_words": (0.007, "cam girl", 1, MENU),
        },
    ),
    (
        "extraction",
        "RefinedWeb, section 3.1 (trafilatura)",
        3201.0,
        0.93,
        {
            "empty": (0.014, 0, 1, "<html><body><script>alert('x')</script></body></html>"),
            "time_limit": (0.0004, "over 5", 5.0, "<table>" * 40),
        },
    ),
    (
        "language",
        "RefinedWeb, section 3.1",
        60.2,
        0.0,
        {
            "other_language": (0.497, "zh", "en", ZH.format("渔民们说着各地的方言。") * 3),
            "low_score": (0.01, 0.41, 0.65, "ok ok hmm lol"),
        },
    ),
    (
        "repetition",
        "Gopher, table A1",
        221.0,
        0.0,
        {
            "max_duplicate_lines": (0.08, 0.62, 0.3, "Buy now and save 20%!\n" * 14),
            "max_top_2_gram": (0.05, 0.31, 0.2, "best shoes best shoes cheap best shoes " * 20),
            "max_duplicate_5_grams": (
                0.031,
                0.22,
                0.15,
                EN.format("Call us today for a quote. ") * 6,
            ),
        },
    ),
    (
        "quality",
        "Gopher, appendix A.1.1",
        180.0,
        0.0,
        {
            "min_words": (0.05, 31, 50, "Page not found. Return to the home page."),
            "min_stop_words": (0.013, 1, 2, "shoes boots sandals " * 30),
        },
    ),
    (
        "lines",
        "RefinedWeb, appendix G.2",
        22.0,
        0.012,
        {"max_removed_words": (0.067, 0.18, 0.05, MENU + EN.format("") + MENU)},
    ),
    (
        "near_duplicates",
        "RefinedWeb, section 3.3 and appendix G.3.1",
        640.0,
        0.0,
        {"near_duplicate": (0.088, "w000017", "kept once", EN.format("It rained."))},
    ),
    (
        "substrings",
        "RefinedWeb, section 3.3 and appendix G.3.2",
        75.0,
        0.014,
        {"short": (0.012, 12, 20, "See also.")},
    ),
    ("personal_data", "", 24.0, -0.0001, {}),
)


def fabricate(folder: pathlib.Path, *, documents: int = 100_000, extra=()) -> pathlib.Path:
    """Writes the folder: the funnel of 100,000 documents and a few of the dropped ones; `extra` records besides."""
    size = documents * 148_000
    left, left_bytes, stages = documents, size, []
    for name, source, seconds, taken, rules in STAGES:
        stage = dict(
            name=name, source=source, seconds=seconds, documents_in=left, bytes_in=left_bytes
        )
        dropped = {}
        for rule, (fraction, *_) in rules.items():
            count = round(fraction * documents)
            dropped[rule] = {"documents": count, "bytes": count * left_bytes // left}
        left -= sum(of["documents"] for of in dropped.values())
        left_bytes -= sum(of["bytes"] for of in dropped.values())
        edited = round(taken * left_bytes)
        left_bytes -= edited
        stages.append(
            stage
            | dict(documents_out=left, bytes_out=left_bytes, bytes_edited=edited, dropped=dropped)
        )
    funnel = {
        "recipe": "refinedweb",
        "inputs": [f"crawl/CC-MAIN-2026-47/{i:05d}.warc.gz" for i in range(4)],
        "finished": "2026-11-27T13:00:00+00:00",
        "seconds": 2412.8,
        "versions": {"jaxlm": "0.1.0", "datatrove": "0.10.1", "trafilatura": "2.3.1"},
        "stages": stages,
        "output": {"documents": left, "bytes": left_bytes, "files": 4},
        "kept_dropped": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "funnel.json").write_text(json.dumps(funnel), encoding="utf-8")
    by_stage = {}
    for name, _, _, _, rules in STAGES:
        for rule, (_, value, threshold, text) in rules.items():
            for i in range(6):
                record = dict(
                    id=f"w{i:06d}-{rule}",
                    url=f"https://www.harbour-news.example/{name}/{i}.html",
                    language="zh"
                    if rule == "other_language"
                    else "en"
                    if name not in ("read", "urls")
                    else "",
                    stage=name,
                    rule=rule,
                    value=value,
                    threshold=threshold,
                    text=text + (f"\nDocument {i} of this rule." if i else ""),
                )
                by_stage.setdefault(name, []).append(record)
    by_stage["lines"].append(
        dict(
            id="edit-1", url="https://blog.example/ferry", language="en", stage="lines", rule="edited", value=None,
            threshold=None, text="Sign-in\n" + EN.format("A long day. " * 60) + "3 likes\n" + EN.format("")
            + "Read more...",
            removed=[["phrases", "Sign-in"], ["counters", "3 likes"], ["phrases", "Read more..."]],
        )
    )  # fmt: skip
    by_stage["personal_data"] = [
        dict(
            id="edit-2", url="https://shop.example/contact", language="en", stage="personal_data", rule="edited",
            value=None, threshold=None, text="Write to <email> or call <phone>, we are glad to help.",
            removed=[["email", "jane@shop.example"], ["phone", "+44 20 7946 0958"]],
        )
    ]  # fmt: skip
    for record in extra:
        by_stage.setdefault(record["stage"], []).append(record)
    for name, records in by_stage.items():
        path = folder / "dropped" / name / "00000.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        # ASCII, so that halves of surrogate pairs can be written
        lines = "".join(json.dumps(record) + "\n" for record in records)
        path.write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
    return folder
