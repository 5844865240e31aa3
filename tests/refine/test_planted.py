"""Pages with known faults (benchmarks/planted.py): they have what is planted; a perfect pipeline scores perfectly."""

import gzip
import io
import json
import pathlib
import random
import re
import sys

import pytest

pytest.importorskip("datatrove")
zstandard = pytest.importorskip("zstandard")

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import planted  # noqa: E402
import planted_faults  # noqa: E402
import planted_score  # noqa: E402
import planted_texts  # noqa: E402
import refined_files  # noqa: E402

PAGES = 260
STOP = ("the", "of", "and", "to", "with", "that", "have", "be")


def lines(path):
    return list(refined_files.records(path))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Sentences of made-up words, so that no two texts share a run by chance."""
    rng = random.Random(5)
    syllables = [a + b for a in "bdfglmnprst" for b in ("a", "e", "i", "o", "u", "an", "er")]
    words = sorted({"".join(rng.choices(syllables, k=rng.randrange(1, 4))) for _ in range(4000)})

    def sentence():
        of = [rng.choice(STOP if rng.random() < 0.25 else words) for _ in range(12)]
        return " ".join(of).capitalize() + "."

    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    with path.open("w") as f:
        for i in range(480):
            text = " ".join(sentence() for _ in range(9 if i % 6 == 0 else 16))
            f.write(json.dumps({"text": text}) + "\n")
    others = path.with_name("others.jsonl")
    with others.open("w") as f:
        for _ in range(12):
            text = "。".join(
                "".join(rng.choices("天地玄黄宇宙洪荒日月盈昃", k=9)) for _ in range(12)
            )
            f.write(json.dumps({"text": text + "。"}) + "\n")
    return path, others


@pytest.fixture(scope="module")
def made(texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "jsonl"
    planted.make(out, texts=texts[:1], others=texts[1:], pages=PAGES)
    return out


@pytest.fixture(scope="module")
def truth(made):
    return lines(made / "truth.jsonl")


@pytest.fixture(scope="module")
def text_of(made):
    return {record["id"]: record["text"] for record in lines(made / "texts.jsonl.gz")}


def pairs(truth, fault):
    out = {}
    for t in truth:
        if t["fault"] == fault:
            out.setdefault(t["group"], []).append(t)
    assert all(len(pair) == 2 for pair in out.values())
    return list(out.values())


def test_every_fault_is_planted(truth, made):
    assert len(truth) == PAGES == len({t["id"] for t in truth})
    faults = {t["fault"] for t in truth}
    assert faults == {None, "personal_data", "contamination", *planted.SINGLE} | {
        fault for fault, _ in planted.PAIRS
    }
    content = gzip.decompress((made / "pages" / "00000.jsonl.gz").read_bytes()).splitlines()
    damaged = 0
    for t, line in zip(truth, content, strict=True):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            damaged += t["fault"] == "damaged"
            continue
        assert record.keys() == {"id", "url", "text"}
        assert (record["id"], record["url"]) == (t["id"], t["url"])
    assert damaged == sum(t["fault"] == "damaged" for t in truth) > 0


def test_near_duplicates_have_the_similarity_that_is_asked_for(truth, text_of):
    found = pairs(truth, "near_duplicate")
    assert {a["target"] for a, _ in found} == set(planted_faults.SIMILARITIES)
    for a, b in found:
        x, y = (set(grams(text_of[t["id"]])) for t in (a, b))
        similarity = len(x & y) / len(x | y)
        assert similarity == pytest.approx(a["similarity"], abs=1e-4)
        assert similarity == pytest.approx(a["target"], abs=0.01)


def grams(text, n=5, unit=r"[a-z0-9]+"):
    of = re.findall(unit, text.lower())
    return zip(*(of[i:] for i in range(n)))


def test_shared_spans_are_exactly_as_long_as_they_say(truth, text_of):
    for a, b in pairs(truth, "shared_span"):
        one, other = (text_of[t["id"]] for t in (a, b))
        # whether or not punctuation counts
        for unit in (r"\w+", r"\w+|[^\w\s]"):
            for n, is_there in ((a["length"], True), (a["length"] + 1, False)):
                shared = set(grams(one, n, unit)) & set(grams(other, n, unit))
                assert bool(shared) == is_there


def test_the_words_beside_a_span_differ():
    # where two places are the same as often as not
    hosts = ("one two. " * 40, "two one two. " * 30)
    donor = "a donor with a few words of its own and then some"
    for seed in range(30):
        made = planted_faults.shared_span(hosts, donor, 7, random.Random(seed))
        assert made[2] == "a donor with a few words of"
        for unit in (r"\w+", r"\w+|[^\w\s]"):
            shared = [set(grams(text, 8, unit)) for text in made[:2]]
            assert not any("donor" in gram for gram in shared[0] & shared[1])
    assert planted_faults.shared_span(hosts, donor, 70, random.Random(0)) is None


def test_clean_pages_share_no_long_run(truth, text_of, made):
    seen = {}
    kept_apart = [
        r["text"] for r in lines(made / "held_out.jsonl") + lines(made / "evaluation.jsonl")
    ]
    for text in [*(text_of[t["id"]] for t in truth if t["fault"] is None), *kept_apart]:
        of = planted_texts.words(text)
        for i in range(len(of) - 23):
            assert seen.setdefault(tuple(of[i : i + 24]), text) is text


def test_a_text_that_is_there_twice_is_taken_once(texts, tmp_path):
    path = tmp_path / "twice.jsonl"
    one = lines(texts[0])[0]["text"]
    start = "Here is something else. " + one[: len(one) // 2]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in (one, start * 2, one)))
    [found] = planted_texts.load([path])
    # in lines
    assert found.split() == one.split()
    assert max(map(len, found.split("\n"))) < 600


def test_texts_are_read_from_the_formats_of_data_sets(texts, tmp_path):
    one, two, three = (record["text"] for record in lines(texts[0])[:3])
    squad = {"paragraphs": [{"context": one, "qas": [{"answers": [{"text": "not this"}]}]}]}
    (tmp_path / "a.json").write_text(json.dumps({"data": [squad]}))
    (tmp_path / "b.tsv").write_text(f"label\ttext\n1\t{two}\n")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(f"{three}\n".encode()))
    (tmp_path / "_README.md").write_text(" ".join(one.split()[::-1]))
    (tmp_path / "d.png").write_bytes(b"\0" * 100)
    found = [text.split() for text in planted_texts.load([tmp_path])]
    assert found == [text.split() for text in (one, two, three)]


def test_contamination_is_in_the_evaluation_texts(truth, text_of, made):
    evaluation = [record["text"] for record in lines(made / "evaluation.jsonl")]
    for t in truth:
        if t["fault"] == "contamination":
            # one more word may agree by chance
            for n, is_there in ((t["length"], True), (t["length"] + 2, False)):
                of = {gram for text in evaluation for gram in grams(text, n)}
                assert of.isdisjoint(grams(text_of[t["id"]], n)) != is_there


def test_checksums_of_personal_data(truth):
    for t in truth:
        if t["fault"] != "personal_data":
            continue
        digits = re.sub(r"\W", "", t["item"])
        if t["kind"].startswith("card"):
            total = sum(
                sum(divmod(int(d) * (1 + i % 2), 10)) for i, d in enumerate(reversed(digits))
            )
            assert (total % 10 == 0) == t["valid"]
        elif t["kind"].startswith("IBAN"):
            moved = digits[4:] + digits[:4]
            assert (int("".join(str(int(c, 36)) for c in moved)) % 97 == 1) == t["valid"]
        elif t["kind"].startswith("identity"):
            check = sum(
                (10 if c == "X" else int(c)) * pow(2, 17 - i, 11) for i, c in enumerate(digits)
            )
            assert (check % 11 == 1) == t["valid"]


def test_the_same_seed_makes_the_same_files(texts, made, tmp_path):
    planted.make(tmp_path / "again", texts=texts[:1], others=texts[1:], pages=PAGES)
    for name in ("pages/00000.jsonl.gz", "truth.jsonl", "held_out.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (made / name).read_bytes()


def test_warc_records(texts, tmp_path):
    warcio = pytest.importorskip("warcio")
    planted.make(tmp_path / "warc", texts=texts[:1], others=texts[1:], pages=PAGES, format="warc")
    text_of = {r["id"]: r["text"] for r in lines(tmp_path / "warc" / "texts.jsonl.gz")}
    data = (tmp_path / "warc" / "pages" / "00000.warc.gz").read_bytes()
    members = re.split(rb"(?=\x1f\x8b\x08\x00\x00\x00\x00\x00)", data)[1:]
    truth = lines(tmp_path / "warc" / "truth.jsonl")
    assert len(members) == PAGES
    for t, member in zip(truth, members):
        if t["fault"] == "damaged":
            with pytest.raises(Exception):  # noqa: B017, PT011
                gzip.decompress(member)
            continue
        record = next(warcio.ArchiveIterator(io.BytesIO(member)))
        assert t["id"] in record.rec_headers.get_header("WARC-Record-ID")
        assert record.rec_headers.get_header("WARC-Target-URI") == t["url"]
        page = record.content_stream().read().decode("utf-8", "ignore")
        if t["fault"] is None:
            assert all(line in page for line in text_of[t["id"]].split("\n"))


def test_too_few_texts_are_an_error(texts, tmp_path):
    with pytest.raises(ValueError, match="--texts: more texts are needed"):
        planted.make(tmp_path / "a", texts=texts[:1], pages=1000)
    with pytest.raises(ValueError, match="--pages 20: the faults need"):
        planted.make(tmp_path / "b", texts=texts[:1], pages=20)


# ---- the score


STAGES = (
    "read", "urls", "language", "repetition", "quality", "lines", "c4", "fineweb", "near_duplicates", "substrings",
    "duplicate_urls", "personal_data", "decontamination",
)  # fmt: skip


def refine(folder, truth, text_of, decide, edit=lambda t, text: text):
    """Writes a refined folder by a function: page -> stage that drops it, or None."""
    dropped, kept = {}, []
    for t in truth:
        stage = decide(t)
        record = {"id": f"<urn:uuid:{t['id']}>", "text": text_of[t["id"]]}
        if stage:
            dropped.setdefault(stage, []).append(record | {"stage": stage, "rule": "some"})
        else:
            kept.append(record | {"text": edit(t, record["text"])})
    # without an id that anybody could read
    damaged = dropped.pop("read", [])
    counts = {name: len(dropped.get(name, damaged if name == "read" else ())) for name in STAGES}
    stages = [
        {"name": name, "dropped": {"some": {"documents": counts[name]}}, "seconds": 1.0}
        for name in STAGES
    ]
    funnel = {"recipe": "fineweb", "stages": stages, "kept_dropped": True}
    for name, records in {
        "documents": kept,
        **{f"dropped/{k}": v for k, v in dropped.items()},
    }.items():
        path = folder / name / "00000.jsonl.zst"
        path.parent.mkdir(parents=True)
        edited = (
            [{"id": "x", "rule": "edited", "text": "", "stage": "lines"}] if "/" in name else []
        )
        data = "".join(json.dumps(record) + "\n" for record in [*records, *edited]).encode()
        path.write_bytes(zstandard.ZstdCompressor().compress(data))
    (folder / "funnel.json").write_text(json.dumps(funnel))
    return folder


def scores(capsys, made, folder):
    """title -> rows of cells."""
    capsys.readouterr()
    planted_score.score(made, folder)
    out = {}
    for part in capsys.readouterr().out.split("\n### ")[1:]:
        title, _, *table = part.strip().split("\n")
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
        out[title] = [dict(zip(rows[0], row)) for row in rows[2:]]
    return out


def test_a_perfect_pipeline_has_perfect_scores(made, truth, text_of, tmp_path, capsys):
    seen = set()

    def decide(t):
        if t["fault"] in ("near_duplicate", "duplicate_url"):
            again = t["group"] in seen
            seen.add(t["group"])
            return planted_score.STAGES[t["fault"]][0] if again else None
        if t["fault"] == "contamination" and t["length"] < 13:
            return None
        return planted_score.STAGES.get(t["fault"], (None,))[0]

    def edit(t, text):
        if t["fault"] == "boilerplate":
            return "\n".join(line for line in text.split("\n") if line not in t["lines"])
        if t["fault"] == "personal_data" and t["valid"]:
            return text.replace(t["item"], "<item>")
        if t["fault"] == "shared_span" and t["length"] >= 50:
            return text.replace(t["span"], "")
        return text

    found = scores(capsys, made, refine(tmp_path / "perfect", truth, text_of, decide, edit))
    account = {row[""]: row["pages"] for row in found["Pages"]}
    assert account["undamaged pages that are nowhere"] == "0"
    assert account["damaged pages made"] == account["dropped by the stage read"]
    for row in found["Stages"]:
        if row["dropped"] != "0":
            assert row["precision"].startswith("100.0%"), row
        if row["planted for it"] != "0" and row["recall of the rest"] != "see below":
            assert row["recall of the rest"].startswith("100.0%"), row
    assert [row["similarity"] for row in found["Near-duplicates"]] == [
        f"{s:g}" for s in planted_faults.SIMILARITIES
    ]
    for row in found["Near-duplicates"] + found["Duplicate URLs"]:
        assert (row["found"].split()[0], row["both copies lost"]) == ("100.0%", "0")
    # 1 - (1 - s^8)^14
    row = found["Near-duplicates"][3]
    assert float(row["promised by 14 x 8"][:-1]) == pytest.approx(
        100 * (1 - (1 - float(row["measured"]) ** 8) ** 14), abs=0.5
    )
    for row in found["Shared spans"]:
        assert row["cut"].startswith("100.0%" if row["should be"] == "cut" else "0.0%"), row
    for row in found["Boilerplate"]:
        assert row["taken out"].startswith("100.0%")
    for row in found["Personal data"]:
        assert row["replaced"].startswith("100.0%" if row["should be"] == "replaced" else "0.0%")
    for row in found["Contamination"]:
        assert row["dropped"].startswith("100.0%" if row["should be"] == "dropped" else "0.0%")
    [row] = found["Texts of clean pages"]
    assert row["with the same words"].startswith("100.0%")


def test_mistakes_are_seen(made, truth, text_of, tmp_path, capsys):
    """A pipeline that drops all near-duplicates, one clean page in quality, loses a page, and cuts words."""
    clean = [t["id"] for t in truth if t["fault"] is None]

    def decide(t):
        if t["id"] == clean[0] or t["fault"] == "short":
            return "quality"
        return {"near_duplicate": "near_duplicates", "damaged": "read"}.get(t["fault"])

    lost = [t for t in truth if t["id"] != clean[1]]
    edit = lambda t, text: text[20:]
    found = scores(capsys, made, refine(tmp_path / "poor", lost, text_of, decide, edit))
    account = {row[""]: row["pages"] for row in found["Pages"]}
    assert account["undamaged pages that are nowhere"] == "1"
    stages = {row["stage"]: row for row in found["Stages"]}
    short = sum(t["fault"] == "short" for t in truth)
    assert stages["quality"]["precision"] == planted_score.ratio(short, short + 1)
    assert stages["quality"]["clean pages"] == "1"
    assert stages["language"]["recall of the rest"].startswith("0.0%")
    assert stages["urls"]["recall of the rest"].startswith("0.0%")
    for row in found["Near-duplicates"]:
        assert row["both copies lost"] == row["pairs"]
    for row in found["Personal data"] + found["Boilerplate"]:
        assert "0.0%" in (row.get("replaced") or row["taken out"])
    [row] = found["Texts of clean pages"]
    assert row["with the same words"].startswith("0.0%")
    assert row["precision of words"].startswith(("97", "98", "99"))


def test_all_dropped_documents_are_needed(made, tmp_path):
    with pytest.raises(ValueError, match="there is no funnel"):
        planted_score.score(made, tmp_path)
    (tmp_path / "funnel.json").write_text(json.dumps({"kept_dropped": False, "stages": []}))
    with pytest.raises(ValueError, match="--keep-dropped"):
        planted_score.score(made, tmp_path)
