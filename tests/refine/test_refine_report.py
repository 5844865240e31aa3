"""The page of a refined folder: its numbers, its sample of documents, and texts that are data and nothing else."""

import base64
import hashlib
import html.parser
import json
import pathlib
import re
import shutil
import xml.etree.ElementTree

import pytest

zstandard = pytest.importorskip("zstandard")

from refined_folder import fabricate  # noqa: E402

from jaxlm.refine import picture, reasons, report, samples  # noqa: E402

HOSTILE = (
    "</script><script>window.ran = 1</script>",
    '<img src=x onerror="window.ran = 2">',
    "<!--<script>",
    "]]>\"'`${window.ran = 3}{{title}}\\u003c\\",
    "line\u2028paragraph\u2029nul\0escape\x1b\ud800half \udfff",
    "\u202eright to left\u202c",
)
NASTY = [
    dict(id=text, url=text, language=text, stage="urls", rule=f"r{i}", value=text, threshold=text, text=text)
    for i, text in enumerate(HOSTILE)
]  # fmt: skip


class Page(html.parser.HTMLParser):
    """Fails where tags do not match; collects elements and the contents of scripts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.scripts, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.words).append(data)

    @property
    def documents(self):
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = fabricate(tmp_path_factory.mktemp("refined") / "out", extra=NASTY)
    assert report.write(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def funnel(folder):
    return json.loads((folder / "funnel.json").read_text())


def test_hostile_texts_are_data(folder, page):
    assert len(page.scripts) == 2
    found = [item for item in page.documents if item["rule"] in {f"r{i}" for i in range(9)}]
    assert sorted(item["pieces"][0][1] for item in found) == sorted(HOSTILE)
    text = (folder / "report.html").read_bytes()
    assert b"\0" not in text
    assert b"\x1b" not in text
    assert not re.search(rb"<(img|script>window)", text)


def test_a_stage_or_rule_with_a_hostile_name(funnel):
    bad = "<script>alert(1)</script>\"'"
    stage = funnel["stages"][1] | {"name": bad, "source": bad}
    stage["dropped"] = {bad: {"documents": 1, "bytes": 1}}
    changed = funnel | {"recipe": bad, "inputs": [bad], "finished": bad, "versions": {bad: bad}}
    sample = samples.Samples([], {(bad, bad): 1}, bad)
    text = report.page(changed | {"stages": [stage, *funnel["stages"][1:]]}, sample)
    Page(text)
    assert "<script>alert" not in text
    xml.etree.ElementTree.fromstring(picture.wide(changed | {"stages": [stage]}))


def test_only_its_own_script_runs(folder, page):
    [policy] = [
        attrs["content"]
        for tag, attrs in page.elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    assert not re.search(sinks, page.scripts[1])
    # nothing is fetched
    assert not any({"src", "onclick", "onload"} & attrs.keys() for _, attrs in page.elements)
    assert all(a["href"].startswith("#") for tag, a in page.elements if tag == "a")
    text = (folder / "report.html").read_text(encoding="utf-8").split('id="documents"')[0]
    assert set(re.findall(r"https?://[\w.]+", text)) == {"http://www.w3.org"}


def test_every_rule_is_in_the_table(funnel, page):
    words = " ".join(page.words)
    for stage in funnel["stages"]:
        assert picture.title(stage["name"]) in words
        assert stage["source"] in words
        for rule, dropped in stage["dropped"].items():
            assert picture.title(rule) in words
            assert f"{dropped['documents']:,}" in words
    assert "100,000 in = 6,160 kept + 93,840 dropped" in words
    assert "finished 2026-11-27 13:00 UTC" in words
    # 1,500 of 100,000, and of 99,600 that reached the stage
    assert "1.5%" in words
    buttons = {a["data-stage"]: a for t, a in page.elements if a.get("data-rule") == "domain"}
    assert buttons["urls"]["aria-label"] == "Read 6 of urls, domain"


def test_an_account_that_does_not_add_up_is_seen(funnel):
    stages = json.loads(json.dumps(funnel["stages"]))
    stages[3]["documents_out"] -= 1
    stages[5]["bytes_edited"] += 1
    text = report.page(funnel | {"stages": stages}, samples.Samples([], {}, ""))
    found = re.search(r'role="alert">(.*?)</p>', text)[1]
    assert found == ("The account does not add up: documents of language, bytes of quality.")


def test_picture(folder, funnel):
    root = xml.etree.ElementTree.parse(folder / "funnel.svg").getroot()
    assert root.tag.endswith("svg")
    rows = picture.rows(funnel)
    assert rows[0].kept[0] == 0.996
    assert rows[3].name == "language"
    # of the documents that reached the stage
    assert rows[3].lost == pytest.approx(0.507 / 0.9596)
    # bytes: of the pages before extraction, of the text after it
    assert rows[2].edited == pytest.approx(0.93 * rows[2].bytes / (1 - 0.93) / (100_000 * 148_000))
    assert rows[3].kept[1] == pytest.approx(rows[3].bytes / rows[2].bytes)
    # the bars of a row lie side by side within their box
    for at, width in ((150, 200), (475, 200)):
        bars = [
            r
            for r in root.iter("{http://www.w3.org/2000/svg}rect")
            if at <= float(r.get("x")) <= at + width
        ]
        for y in {bar.get("y") for bar in bars}:
            right = at
            for bar in (b for b in bars if b.get("y") == y and b.get("class") != "track"):
                assert float(bar.get("x")) == pytest.approx(right, abs=0.11)
                right = float(bar.get("x")) + float(bar.get("width"))
            assert right <= at + width + 0.2


def test_table_for_the_terminal(funnel):
    lines = report.table(funnel).split("\n")
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) < 80
    assert lines[4].split() == [
        "language",
        "45,260",
        "45.3%",
        "50,700",
        "52.8%",
        "447",
        "MiB",
        "1m00s",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0%"), (1, "100%"), (0.99999, ">99.9%"), (0.000001, "<0.01%"), (0.0012, "0.12%"), (0.243, "24.3%")],
)  # fmt: skip
def test_a_little_is_not_nothing(value, shown):
    assert picture.percent(value) == shown


def test_nothing_came_in(tmp_path):
    stage = dict(name="read", source="", seconds=0.0, documents_in=0, bytes_in=0, documents_out=0)
    stage |= dict(bytes_out=0, bytes_edited=0, dropped={})
    for stages in ([stage], []):
        funnel = dict(
            recipe="custom", inputs=[], finished="", seconds=0.0, versions={}, stages=stages
        )
        funnel |= dict(output=dict(documents=0, bytes=0, files=0), kept_dropped=False)
        (tmp_path / "funnel.json").write_text(json.dumps(funnel))
        Page(report.write(tmp_path).read_text(encoding="utf-8"))
        report.table(funnel)


def test_a_folder_that_is_not_finished(tmp_path):
    with pytest.raises(ValueError, match="there is no funnel"):
        report.write(tmp_path)


# ---- why, in words


@pytest.mark.parametrize(
    ("stage", "rule", "value", "threshold", "words"),
    [
        ("repetition", "max_duplicate_lines", 0.6233, 0.3, "62.3% of the lines repeat an earlier one (at most 30%)."),
        ("repetition", "max_duplicate_7_grams", 1.0, 0.13,
         "100% of the characters are in runs of 7 words that repeat an earlier one (at most 13%)."),
        ("repetition", "max_top_2_gram", 0.21, 0.2,
         "21% of the characters are in the most frequent run of 2 words (at most 20%)."),
        ("repetition", "max_duplicate_lines", 0.300123, 0.3,
         "30.01% of the lines repeat an earlier one (at most 30%)."),
        ("quality", "min_words", 12, 50, "The text has 12 words (at least 50)."),
        ("quality", "max_words", 100_001, 100_000, "The text has 100,001 words (at most 100,000)."),
        ("quality", "max_mean_word_length", 12.345, 10, "A word has 12.3 characters on average (at most 10)."),
        ("urls", "hard_word", "{value}", "none", "The URL has the word “{value}”, of which none is allowed."),
        ("extraction", "empty", 0, 1, "No text was found on the page."),
        ("c4", "empty", 0, 1, "No text is left."),
        ("mine", "my_rule", 0.12345, 2.0, "my rule: 0.123; threshold: 2"),
        ("mine", "my_rule", None, "none", "my rule: None; threshold: none"),
    ],
)  # fmt: skip
def test_reasons(stage, rule, value, threshold, words):
    assert reasons.sentence(stage, rule, value, threshold) == words


def test_every_rule_of_the_package_has_a_sentence():
    """The names are read from the source: `Drop("name", ...)`, and fields of rules that are thresholds."""
    names = set()
    for path in pathlib.Path(reasons.__file__).parent.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        names |= {(path.stem, name) for name in re.findall(r'\bDrop\(\s*"(\w+)"', source)}
        names |= {
            (path.stem, name) for name in re.findall(r'yield \(?\s*"((?:max|min)_\w+)"', source)
        }
    wanting = [
        name for name in names if reasons.sentence(*name, 1, 2).startswith(picture.title(name[1]))
    ]
    assert sorted(wanting) == []


# ---- the sample of documents


def put(folder, stage, records, name="00000.jsonl.zst"):
    path = folder / stage / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    # two frames, as of a writer that was started again
    half = len(data) // 2
    compress = zstandard.ZstdCompressor().compress
    path.write_bytes(compress(data[:half]) + compress(data[half:]))
    return path


def record(i, rule="words", text="Some text.", **others):
    same = dict(url="", language="en", stage="quality", value=1, threshold=2)
    return same | dict(id=i, rule=rule, text=text) | others


def test_the_sample_is_bounded_and_from_all_files(tmp_path):
    for file in range(3):
        put(tmp_path, "quality", [record(f"{file}-{i}") for i in range(300)], f"{file}.jsonl.zst")
    put(tmp_path, "lines", [record("one", stage="lines", rule="rare")])
    found = samples.read(tmp_path)
    assert found.counts == {("quality", "words"): 50, ("lines", "rare"): 1}
    chosen = [item["id"] for item in found.documents if item["rule"] == "words"]
    assert len(set(chosen)) == 50
    assert {name[0] for name in chosen} == {"0", "1", "2"}
    # not only the first of a file
    assert sum(int(name[2:]) >= 150 for name in chosen) > 10
    assert "at most 50 documents" in found.bounds.lower()
    assert "from 901 in" in found.bounds
    assert samples.read(tmp_path) == found


def test_large_documents_leave_fewer_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "_MOST_BYTES", 100_000)
    put(tmp_path, "quality", [record(f"{i}", text="x" * 50_000) for i in range(40)])
    put(tmp_path, "lines", [record(f"{i}", stage="lines", rule="rare") for i in range(10)])
    found = samples.read(tmp_path)
    assert len(json.dumps(found.documents)) < 100_000
    assert found.counts[("lines", "rare")] == 10
    assert found.counts[("quality", "words")] > 10
    assert f"At most {found.counts[('quality', 'words')]} documents" in found.bounds


def test_a_long_text_is_cut(tmp_path):
    text = "a" * 3000 + "b" * 10_000 + "c" * 1000
    put(tmp_path, "quality", [record("1", text=text, value="v" * 5000, url="u" * 5000)])
    [item] = samples.read(tmp_path).documents
    assert item["pieces"] == [[0, "a" * 3000], [1, 10_000], [0, "c" * 1000]]
    assert item["characters"] == 14_000
    assert len(item["why"]) < 700
    assert len(item["url"]) == 1000


def test_what_was_taken_out_is_marked_where_it_was(tmp_path):
    text = "Sign-in\n" + "A sentence. " * 100 + "\n3 likes\nThe end.\n3 likes"
    removed = [
        ["start", "Sign-in"],
        ["counter", "3 likes"],
        ["counter", "3 likes"],
        ["e-mail", "a@b.cd"],
    ]
    put(tmp_path, "lines", [record("1", "edited", text, stage="lines", removed=removed)])
    [item] = samples.read(tmp_path).documents
    kinds = [kind for kind, _ in item["pieces"]]
    assert kinds == ["start", 0, 1, 0, "counter", 0, "counter"]
    # the pieces are the text
    whole = "".join(piece if kind != 1 else "*" * piece for kind, piece in item["pieces"])
    assert len(whole) == len(text)
    assert item["removed"] == [["e-mail", "a@b.cd"]]
    assert item["why"] == "Kept after a change: start (1), counter (2), e-mail (1)"


@pytest.mark.parametrize(
    ("text", "what", "before"),
    [
        # a line of its own comes before a part of a line
        ("claim it\nby word\n it \nit", "it", "claim it\nby word\n "),
        # not within a word, if there is another place
        ("within it.", "it", "within "),
        ("within", "it", None),
        # a line of which only the start was stored
        ("first\n" + "a b " * 100, "a b " * 75, "first\n"),
        ("我们的登录页面", "登录页面在这里", None),
        ("x (a+b)* y", "(a+b)*", "x "),
        ("What is left.", "gone", None),
        ("What is left.", " ", None),
    ],
)
def test_the_place_of_what_was_taken_out(tmp_path, text, what, before):
    put(tmp_path, "lines", [record("1", "edited", text, stage="lines", removed=[["r", what]])])
    [item] = samples.read(tmp_path).documents
    if before is None:
        assert (item["pieces"], item["removed"]) == ([[0, text]], [["r", what]])
    else:
        assert item["pieces"][:2] == [[0, before], ["r", what.strip()]]
        assert item["removed"] == []


def test_a_dropped_document_with_marks(tmp_path):
    text = "Home\nSome text."
    dropped = record(
        "1", "max_removed_words", text, value=0.5, threshold=0.05, removed=[["min_words", "Home"]]
    )
    put(tmp_path, "lines", [dropped])
    [item] = samples.read(tmp_path).documents
    assert item["pieces"] == [["min_words", "Home"], [0, "\nSome text."]]
    assert item["why"] == "Corrections would take out 50% of the words (at most 5%)."


def test_marks_in_a_very_long_text(tmp_path):
    text = "a" * 1000 + "\nHome\n" + "b" * 3_000_000
    put(tmp_path, "lines", [record("1", "edited", text, removed=[["min_words", "Home"]])])
    [item] = samples.read(tmp_path).documents
    sizes = [piece if kind == 1 else len(piece) for kind, piece in item["pieces"]]
    assert sum(sizes) == len(text)
    assert len(json.dumps(item)) < 3000


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = put(tmp_path, "quality", [record(str(i), text=str(i) * 999) for i in range(2000)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"garbage" + data[len(data) // 2 :])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        samples.read(tmp_path)


def test_no_dropped_documents(tmp_path):
    assert samples.read(tmp_path / "dropped")[:2] == ([], {})


# ---- in a browser


NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, folder):
    """Opens the page; at the end it has logged no error, opened no dialog and asked nobody for anything."""
    contexts, wrong = [], []

    def visit(**settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | settings)
        context.set_default_timeout(20_000)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        address = (folder / "report.html").as_uri()
        asked = lambda request: request.url.split("#")[0] == address or wrong.append(request.url)
        tab.on("request", asked)
        tab.goto(address)
        return tab

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def number_of(tab):
    """(place, documents that pass the filters)"""
    return tuple(map(int, tab.locator("#position").text_content().split(" of ")))


@pytest.mark.slow
def test_hostile_texts_do_not_run(visit):
    tab = visit()
    tab.select_option("#stage", "=urls")
    assert number_of(tab) == (1, 18)
    seen = []
    for i in range(18):
        assert number_of(tab) == (i + 1, 18)
        seen.append(tab.locator("#text").text_content())
        tab.keyboard.press("ArrowRight")
    # controls are shown as symbols; a half of a surrogate pair as U+FFFD
    shown = [text.replace("\0", "␀").replace("\x1b", "␛") for text in HOSTILE]
    shown = [re.sub("[\ud800-\udfff]", "�", text) for text in shown]
    assert set(shown) <= {re.sub("[\ud800-\udfff]", "�", text) for text in seen}
    assert tab.evaluate("window.ran") is None
    assert tab.locator("script").count() == 2
    assert tab.locator("img").count() == 0


@pytest.mark.slow
def test_filters_and_keys(visit):
    tab = visit()
    total = number_of(tab)[1]
    tab.get_by_role("button", name="Read 6 of quality, min stop words").click()
    assert number_of(tab) == (1, 6)
    assert tab.evaluate("document.activeElement.id") == "document"
    for key, place in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2)):
        tab.keyboard.press(key)
        assert number_of(tab) == (place, 6)
    for name, last in (("Previous document", 1), ("Next document", 6)):
        button = tab.get_by_role("button", name=name)
        while button.is_enabled():
            button.click()
        assert number_of(tab) == (last, 6)
    tab.fill("#words", "DOCUMENT rule 3")
    assert number_of(tab) == (1, 1)
    assert tab.locator("#text mark").all_text_contents() == ["Document", "3", "rule"]
    # keys move the cursor within a field
    tab.keyboard.press("ArrowLeft")
    tab.fill("#words", "nowhere to be seen")
    assert tab.locator("#position").text_content() == "No document passes the filters"
    assert tab.locator("#document").is_hidden()
    tab.fill("#words", "")
    tab.select_option("#rule", "")
    tab.select_option("#stage", "=language")
    tab.select_option("#language", "=zh")
    assert number_of(tab) == (1, 6)
    assert "灯塔" in tab.locator("#text").text_content()
    # a stage that has no such rule
    tab.select_option("#rule", "=other_language")
    tab.select_option("#language", "")
    tab.select_option("#stage", "=quality")
    assert number_of(tab) == (1, 12)
    tab.select_option("#stage", "")
    assert number_of(tab) == (1, total)


@pytest.mark.slow
def test_what_was_taken_out_is_seen(visit):
    tab = visit()
    tab.get_by_role("button", name="Read 1 of lines, edited").click()
    assert tab.locator("#text del").all_text_contents() == [
        "Sign-inphrases",
        "3 likescounters",
        "Read more...phrases",
    ]
    assert "characters are left out" in tab.locator("#text .left-out").text_content()
    tab.get_by_role("button", name="Read 1 of personal data, edited").click()
    assert tab.locator("#taken dd").all_text_contents() == ["jane@shop.example", "+44 20 7946 0958"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 360])
def test_nothing_is_cut_off(visit, width):
    tab = visit(viewport={"width": width, "height": 640})
    tab.select_option("#stage", "=urls")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator("figure svg:visible").count() == 1
    # the text of the picture is large enough to be read
    assert tab.locator("figure svg:visible text").first.bounding_box()["height"] >= 12


@pytest.mark.slow
def test_accessibility_rules(visit):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    tab = visit()
    tab.get_by_role("button", name="Read 1 of lines, edited").click()
    tab.fill("#words", "ferry")
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        result = axe.run(tab, options={"runOnly": {"type": "tag", "values": tags}})
        found = [(v["id"], v["nodes"][0]["html"]) for v in result.response["violations"]]
        assert found == [], scheme
