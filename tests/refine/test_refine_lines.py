"""Line-wise corrections of RefinedWeb, appendix G.2."""

import pytest

pytest.importorskip("datatrove")
from datatrove.data import Document

from jaxlm.refine.lines import Lines

PROSE = {
    "en": "The river rises in the hills north of the town and flows past three old mills on its way to the sea.",
    "zh": "这条河发源于城市北部的山区，流经三座古老的磨坊，最后注入大海，沿岸的居民世代以捕鱼和种田为生。",
    "de": "Der Fluss entspringt in den Hügeln nördlich der Stadt und fließt an drei alten Mühlen vorbei zum Meer.",
}
# language, line -> what is left of it (None: nothing), rule
TABLE = [
    ("en", "MENU AND LOGIN AREA", None, "max_uppercase"),
    ("en", "NASA and the ESA signed it", "NASA and the ESA signed it", None),
    ("en", "12345", None, "numbers"),
    ("en", "1 2 3 4 5", None, "numbers"),
    ("en", "In 1999", "In 1999", None),
    ("en", "3 likes", None, "counters"),
    ("en", "1,204 Comments", None, "counters"),
    ("en", "• 1.2k views · 14 replies •", None, "counters"),
    ("en", "3 likes for the idea", "3 likes for the idea", None),
    ("en", "Home", None, "min_words"),
    ("en", "About us", "About us", None),
    ("en", "3 items in cart", None, "phrases"),
    ("en", "You have 3 items in cart now", "You have now", "phrases"),
    ("en", "The story goes on Read more...", "The story goes on", "phrases"),
    ("en", "Sign-in My account", "My account", "phrases"),
    ("en", "Sign-ins are counted", "Sign-ins are counted", None),
    ("en", "We read more... and wrote less", "We read more... and wrote less", None),
    ("zh", "点赞 123", None, "counters"),
    ("zh", "3条评论", None, "counters"),
    ("zh", "浏览次数：345次", None, "counters"),
    ("zh", "1.2万次播放 · 345弹幕", None, "counters"),
    ("zh", "转发(5)  收藏 10  分享 2", None, "counters"),
    ("zh", "转发收藏分享", "转发收藏分享", None),
    ("zh", "12個讚", None, "counters"),
    ("zh", "他有3条建议", "他有3条建议", None),
    ("zh", "首页", None, "min_words"),
    ("zh", "好的。", "好的。", None),
    ("zh", "2024", None, "numbers"),
    ("zh", "登录 我的账户", "我的账户", "phrases"),
    ("zh", "登录后可以查看", "登录后可以查看", None),
    ("zh", "河流的历史 阅读全文", "河流的历史", "phrases"),
    ("zh", "3 件商品在购物车", None, "phrases"),
    ("de", "12 Kommentare", None, "counters"),
    ("de", "Die Geschichte des Flusses Weiterlesen", "Die Geschichte des Flusses", "phrases"),
    ("zh", "2,418", None, "numbers"),
    ("zh", "3.5 2", None, "numbers"),
    ("zh", "阅读更多...", None, "phrases"),
    ("zh", "查看更多>>", None, "phrases"),
    ("zh", "版本 2.4", "版本 2.4", None),
    ("en", "...", None, "min_words"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "line", "left", "rule"), TABLE)
def test_a_line(language, line, left, rule):
    prose = "\n".join([PROSE[language]] * 5)
    document = Document(f"{prose}\n{line}\n{prose}", "0", metadata={"language": language})
    assert Lines(max_removed_words=None).check(document) is None
    assert document.text == "\n".join([prose, left, prose] if left else [prose, prose])
    assert document.metadata.get("removed_lines") == ([[rule, line]] if rule else None)


def test_a_document_that_loses_more_than_5_percent_of_its_words_is_dropped():
    menu = "Home\n3 likes\n"
    text = menu + PROSE["en"]  # 3 of 25 words
    document = Document(text, "0")
    drop = Lines().check(document)
    assert (drop.rule, drop.threshold) == ("max_removed_words", 0.05)
    assert drop.value == pytest.approx(3 / 25)
    # what a dropped document lost is in the report, its text is the one that was read
    assert document.text == text
    assert document.metadata["removed_lines"] == [["min_words", "Home"], ["counters", "3 likes"]]

    document = Document(menu + "\n\n" + "\n".join([PROSE["en"]] * 3), "0")  # 3 of 69 words
    assert Lines().check(document) is None
    assert document.text == "\n".join([PROSE["en"]] * 3)


def test_rules_are_switched_off():
    text = "HOME PAGE\n12 34\n3 likes\nHome\nSign-in"
    off = Lines(max_uppercase=None, numbers=False, counters=False, min_words=None, phrases=False)
    document = Document(text, "0")
    assert off.check(document) is None
    assert document.text == text
    assert document.metadata == {}


def test_nothing_left_is_dropped_and_the_report_is_bounded():
    document = Document("3 likes\n" * 1000 + "X" * 1000, "0")
    drop = Lines(max_removed_words=None).check(document)
    assert drop.rule == "empty"
    removed = document.metadata["removed_lines"]
    assert len(removed) == 50
    document = Document("X" * 1000, "0")
    Lines().check(document)
    assert document.metadata["removed_lines"] == [["max_uppercase", "X" * 300]]


def test_at_most_one_line_stays_empty():
    prose = PROSE["en"]
    document = Document(f"{prose}\n\n\nHome\n\n\n{prose}\n12\n", "0")
    Lines(max_removed_words=None).check(document)
    assert document.text == f"{prose}\n\n{prose}"


def test_a_key_of_the_input_does_not_stop_a_task():
    document = Document("Home\n" + PROSE["en"], "0", metadata={"removed_lines": "from elsewhere"})
    Lines(max_removed_words=None).check(document)
    assert document.metadata["removed_lines"] == [["min_words", "Home"]]
