"""Chinese prose passes where menus and spam do not, and how a rule takes the conventions of a language."""

import json

import pytest

pytest.importorskip("datatrove")
from datatrove.data import Document
from refine_texts import CLEAN, DIRTY

from jaxlm.refine import languages, thresholds, words
from jaxlm.refine.c4 import C4
from jaxlm.refine.fineweb import FineWeb
from jaxlm.refine.lines import Lines
from jaxlm.refine.quality import Quality
from jaxlm.refine.repetition import Repetition

CHAIN = [Repetition(), Quality(), Lines(), C4(), FineWeb()]


def first_drop(text: str, language: str):
    document = Document(text, "0", metadata={"language": language})
    for rule in CHAIN:
        if drop := rule.check(document):
            return rule.name, drop
    return None


@pytest.mark.parametrize("name", CLEAN)
def test_clean_prose_passes_unchanged(name):
    text, language = CLEAN[name], name[:2]
    document = Document(text, "0", metadata={"language": language})
    for rule in CHAIN:
        assert rule.check(document) is None, rule.name
    assert document.text == text


@pytest.mark.parametrize("name", DIRTY)
def test_chinese_menus_and_spam_do_not(name):
    text, stage = DIRTY[name]
    result = first_drop(text, "zh")
    assert result and result[0] == stage, result


def test_english_thresholds_would_drop_chinese_prose():
    text = CLEAN["zh, encyclopedia"]
    drop = Quality(by_language=False).check(Document(text, "0", metadata={"language": "zh"}))
    assert drop.rule == "min_mean_word_length"
    assert C4(by_language=False).check(Document(text, "0")).rule == "min_sentences"


def test_codes_of_a_language():
    for name in ("zh", "zh-Hant", "zh_TW", "cmn_Hani", "ZH-cn", "yue"):
        assert languages.code(name) == "zh"
        assert not languages.conventions(name).spaced
    assert languages.code("eng_Latn") == "en"
    assert languages.conventions("tlh").spaced
    # a language without a list has no stop-word rule, rather than the English one
    assert languages.conventions("tlh").stop_words == ()


def test_conventions_are_well_formed():
    for language, conventions in languages.CONVENTIONS.items():
        for word in conventions.stop_words:
            assert words.split(word) == [word], (language, word)
        for phrase in conventions.policies:
            assert phrase == phrase.lower()
        assert len(set(conventions.stop_words)) == len(conventions.stop_words)


def test_what_the_user_sets_holds_in_every_language():
    assert Quality().adapted("zh").min_words == 70
    assert Quality(min_words=20).adapted("zh").min_words == 20
    assert Quality(min_words=20).adapted("zh").min_mean_word_length is None
    assert Quality(min_words=None).adapted("zh").min_words is None
    given = {"zh": {"min_words": 33}}
    assert Quality(min_words=20, thresholds=given).adapted("zh-TW").min_words == 33
    assert Quality(min_words=20, thresholds=given).adapted("en").min_words == 20
    assert Quality(by_language=False).adapted("zh").min_words == 50
    with pytest.raises(
        ValueError, match=r"thresholds\['zh'\] of quality: no fields \['min_word'\]"
    ):
        Quality(thresholds={"zh": {"min_word": 3}})
    with pytest.raises(ValueError, match="stop_words: 'two words' is not one word"):
        Quality(stop_words=("two words",))


def test_the_language_of_a_document_wins_over_the_rules():
    text = CLEAN["zh, encyclopedia"]
    rule = Quality(language="en")
    assert rule.check(Document(text, "0", metadata={"language": "zh"})) is None
    assert rule.check(Document(text, "0")) is not None
    assert Quality(language="zh").check(Document(text, "0")) is None
    # nonsense in the metadata of a reader does not stop a task
    for language in (7, None, "", "??", "x" * 1000):
        rule.check(Document(text, "0", metadata={"language": language}))
    assert len(rule._adapted) <= 3


def test_rules_are_pickled_and_compared():
    import pickle

    rule = Quality(min_words=7, thresholds={"zh": {"min_words": 9}})
    rule.check(Document(CLEAN["en"], "0"))
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule
    assert hash(copy) == hash(rule)
    assert copy.adapted("zh").min_words == 9


def sample(language: str) -> list[str]:
    """Clean texts: pieces of the prose above, put together anew."""
    parts = [
        part
        for name in CLEAN
        if name[:2] == language
        for part in words.sentences(CLEAN[name].replace("\n", ""))
    ]
    return ["".join(parts[(i * k) % len(parts)] for k in range(1, 7)) for i in range(1, 121)]


def test_thresholds_of_a_sample():
    texts = sample("zh")
    for method in ("quantile", "mean_std", "tail"):
        derived = thresholds.derive(texts, "zh", method, tail=0.1)
        assert json.loads(json.dumps(derived)) == derived
        assert list(derived) == ["zh"]
        assert set(derived["zh"]) == {"repetition", "quality", "fineweb"}
        assert derived["zh"]["quality"]["min_mean_word_length"] is None
        # lines do not repeat in texts of one line
        assert "max_duplicate_lines" not in derived["zh"]["repetition"]

    tail = thresholds.derive(texts, "cmn", "tail", tail=0.1)
    rule = thresholds.for_language(Repetition(), "zh", tail)
    values = thresholds.statistics(texts, "zh")["repetition"]
    fields = tail["zh"]["repetition"]
    assert "max_top_2_gram" in fields
    for field in fields:
        assert getattr(rule, field) == fields[field]
        # a rule drops no more than the tail of the sample that it was derived from
        assert (values[field] > fields[field]).mean() <= 0.1
        assert (values[field] > fields[field] - 0.002).mean() > 0.05 or (
            values[field] == 0
        ).mean() > 0.8


def test_what_few_texts_of_a_sample_have_has_no_threshold():
    line = "这一行在每篇文章里都有。"

    def derived(number, method="tail"):
        # texts of three lines, of which `number` repeat one
        texts = ["\n".join([text, text[::-1], line]) for text in sample("zh")]
        texts[:number] = ["\n".join([line] * 3)] * number
        return thresholds.derive(texts, "zh", method, tail=0.1)["zh"]["repetition"]

    # 4 of 120 have some; 8 do, but 90 % of the texts have none, so that the tail is at nought
    for number in (4, 8):
        assert "max_duplicate_lines" not in derived(number)
    assert derived(20)["max_duplicate_lines"] == pytest.approx(2 / 3, abs=0.001)
    # the most that any text has says little if hardly any has some
    assert "max_duplicate_lines" not in derived(4, "quantile")
    assert "max_duplicate_lines" in derived(20, "quantile")

    # a text of one line says nothing about lines
    assert thresholds.derive(sample("zh"), "zh")["zh"]["fineweb"] == {}
    texts = ["\n".join([text, text, "无标点"]) for text in sample("zh")]
    assert thresholds.derive(texts, "zh")["zh"]["fineweb"]["min_punctuated_lines"] <= 0.667


def test_thresholds_are_as_far_from_the_mean_as_the_english_ones():
    texts = sample("zh")
    reference = sample("en")
    derived = thresholds.derive(texts, "zh", "mean_std", reference=reference)
    ours = thresholds.statistics(texts, "zh")["repetition"]["max_top_3_gram"]
    english = thresholds.statistics(reference, "en")["repetition"]["max_top_3_gram"]
    expected = ours.mean() + (0.18 - english.mean()) / english.std() * ours.std()
    assert derived["zh"]["repetition"]["max_top_3_gram"] == pytest.approx(expected, rel=0.02)


def test_a_language_without_a_list_gets_its_frequent_words_as_stop_words():
    texts = [f"kaj la domo {i} estas en la urbo kaj la viro iras al la domo" for i in range(100)]
    derived = thresholds.derive(texts, "eo")
    stop_words = derived["eo"]["quality"]["stop_words"]
    assert stop_words[:2] == ["la", "kaj"]
    assert "0" not in stop_words
    rule = thresholds.for_language(Quality(min_words=None), "eo", json.loads(json.dumps(derived)))
    assert rule.stop_words == tuple(stop_words)
    assert rule.check(Document(texts[0], "0")) is None
    drop = rule.check(Document(texts[0].replace("la", "li"), "0"))
    assert (drop.rule, drop.value) == ("min_stop_words", 8)
    both = thresholds.with_thresholds(Quality(), derived | {"zh": {"quality": {"min_words": 7}}})
    assert both.adapted("eo").stop_words == tuple(stop_words)
    assert both.adapted("zh").min_words == 7
    assert both.adapted("en").min_words == 50


def test_a_sample_that_is_no_sample_is_refused():
    with pytest.raises(ValueError, match="texts: 3 are too few for statistics of 'zh'"):
        thresholds.derive(["一二三"] * 3, "zh")
    with pytest.raises(ValueError, match="method: 'median' is none of"):
        thresholds.derive(sample("zh"), "zh", "median")
    with pytest.raises(ValueError, match=r"tail: 0\.7"):
        thresholds.derive(sample("zh"), "zh", "tail", tail=0.7)
    with pytest.raises(ValueError, match=r"none for 'de', only for \['zh'\]"):
        thresholds.for_language(Quality(), "de", {"zh": {}})
