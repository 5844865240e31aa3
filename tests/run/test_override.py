"""Settings that are changed after training: one that would do nothing is refused by name."""

import pytest

from jaxlm.cli.arguments import read_settings
from jaxlm.cli.main import main
from jaxlm.config import DataConfig, FinetuneConfig, TrainConfig, VAEConfig
from jaxlm.run.override import with_settings
from jaxlm.tasks import (
    AnsweringConfig,
    ChatConfig,
    LabelledVAEConfig,
    TextToTextConfig,
    TextVAEConfig,
    task_class,
)


def changed(task, purpose, **settings):
    """The settings of a task with other values for this purpose."""
    data = DataConfig(train=("x",))
    if isinstance(task, TextVAEConfig):
        config = TrainConfig(task=task, data=data, model=VAEConfig())
    else:
        config = FinetuneConfig(task=task, data=data)
    return with_settings(task_class(task), config, settings, purpose).task


SOME, ALL, UNKNOWN = (AnsweringConfig(unanswerable=x) for x in (True, False, None))


@pytest.mark.parametrize(
    ("task", "purpose", "settings"),
    [
        (ChatConfig(), "predict", dict(max_new_tokens=3, system="be brief")),
        (ChatConfig(), "validation", dict(system="be brief")),
        (LabelledVAEConfig(), "validation", dict(importance_samples=3, importance_texts=4)),
        (TextVAEConfig(), "validation", dict(long_texts="cut")),
        (TextToTextConfig(), "predict", dict(num_beams=1, max_new_tokens=3, length_penalty=0.5)),
        (TextToTextConfig(), "validation", dict(num_beams=1, max_new_tokens=3)),
        (SOME, "predict", dict(null_threshold=2.0, max_answer_tokens=3)),
        (ALL, "predict", dict(null_threshold=2.0, unanswerable=True)),
        # the data say it
        (UNKNOWN, "validation", dict(null_threshold=2.0)),
    ],
)
def test_settings_are_changed_for_what_they_are_of(task, purpose, settings):
    found = changed(task, purpose, **settings)
    assert {name: getattr(found, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("task", "purpose", "settings", "message"),
    [
        (
            ChatConfig(),
            "validation",
            dict(max_new_tokens=3),
            "max_new_tokens has no effect on an ev",
        ),
        (
            LabelledVAEConfig(),
            "predict",
            dict(importance_texts=3),
            "no effect on predictions of ta",
        ),
        (LabelledVAEConfig(), "validation", dict(long_texts="cut"), "a label is of a whole text"),
        (ALL, "validation", dict(null_threshold=1.0), "no effect with task.unanswerable=False"),
        (UNKNOWN, "predict", dict(null_threshold=1.0), "no effect with task.unanswerable=None"),
        (SOME, "predict", dict(unanswerable=False, null_threshold=1.0), "every question gets an"),
        (SOME, "predict", dict(unanswerable=None), "says nothing: give True or False"),
        (TextToTextConfig(), "predict", dict(num_beams=10**6), "must be at most 1000"),
    ],
)
def test_a_setting_without_effect_is_refused(task, purpose, settings, message):
    with pytest.raises(ValueError, match=message):
        changed(task, purpose, **settings)


def test_values_are_read_as_python_writes_them_or_are_texts():
    given = {
        "1": 1,
        "1e-3": 1e-3,
        "True": True,
        "None": None,
        "'5'": "5",
        "": "",
        "nan": "nan",
        "Answer in 1or 2 words.": "Answer in 1or 2 words.",
        # of these, literal_eval raises TypeError, SyntaxError and MemoryError or RecursionError
        "{[1]: 2}": "{[1]: 2}",
        "(" * 300: "(" * 300,
        "-" * 20_000 + "1": "-" * 20_000 + "1",
    }
    for text, value in given.items():
        assert read_settings([f"a={text}"]) == {"a": value}


def test_settings_are_refused_where_the_task_does_not_count(tmp_path, capsys):
    for other in (["--stride", "4"], ["--harness", "mine"]):
        assert main(["evaluate", str(tmp_path), *other, "--settings", "system=x"]) == 2
        assert f"which {other[0]} does not use" in capsys.readouterr().err
