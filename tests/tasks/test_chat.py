"""Chat runs: data of both shapes, bad rows, loss on answers alone, answers of the run and of the exported folder."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import small_runs, tiny, write_corpus

from jaxlm import (
    ChatConfig,
    DataConfig,
    DecoderConfig,
    EvaluationConfig,
    FinetuneConfig,
    TokenizerConfig,
)
from jaxlm.config import OptimizerConfig
from jaxlm.run import convert, evaluate, load, predict, prepare, report, restore
from jaxlm.run.finetune import finetune
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks.downstream.chat import Chat

# whole runs: too long for a quick pass
pytestmark = pytest.mark.slow

pytest.importorskip("jinja2")
ASK, ANSWER = {"role": "user", "content": "ann?"}, {"role": "assistant", "content": "bob."}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_chats(folder):
    """Forty conversations of one or two turns, whose answers repeat the question."""
    rng = np.random.default_rng(0)
    names = ["ann", "bob", "cat", "dan", "eve"]
    turn = lambda name: [
        {"role": "user", "content": f"met {name}?"},
        {"role": "assistant", "content": f"{name} met."},
    ]
    rows = [
        {"messages": [m for name in rng.choice(names, 1 + i % 2) for m in turn(name)]}
        for i in range(40)
    ]
    return write_rows(folder / "chats.jsonl", rows)


def config_of(folder, name, **changes):
    config = FinetuneConfig(
        name=name,
        run_dir=str(folder / name),
        init=str(folder / "base"),
        task=ChatConfig(max_new_tokens=12),
        data=DataConfig(train=(str(folder / "chats.jsonl"),), validation_fraction=0.2, seq_len=96),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
        evaluation=EvaluationConfig(every=100),
        steps=40,
        batch_size=4,
        log_every=20,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    write_corpus(folder)
    write_chats(folder)
    model = DecoderConfig(dim=32, num_layers=2, num_heads=2, max_len=128)
    with small_runs() as patch:
        # a sample is what one test looks at
        patch.setattr(Chat, "sample", Chat.__dict__.get("sample"))
        base = tiny(folder, "base", steps=2, model=model)
        data = dataclasses.replace(
            base.data, seq_len=64, tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=320)
        )
        pretrain(dataclasses.replace(base, data=data))
        yield folder


@pytest.fixture(scope="module")
def trained(folder):
    """The summary of a run on a base model without a template, and what it printed."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "say", lines.append)
        return finetune(config_of(folder, "run")), lines


@pytest.mark.slow
def test_a_base_model_gets_a_template_and_learns_to_answer(folder, trained):
    summary, lines = trained
    assert "the tokenizer gets 2 new control tokens" in lines
    assert any("has no chat template: it gets ChatML" in line for line in lines)
    assert any("conversations" in line and "tokens of answers" in line for line in lines)
    # an answer is determined by its question, but for the question's name itself
    assert summary["evaluation"]["loss"] < 1
    assert set(summary["evaluation"]) == {"loss", "perplexity", "accuracy"}


@pytest.fixture(scope="module")
def exported(folder, trained):
    """The run in the Hugging Face layout."""
    convert.convert(folder / "run", folder / "exported")
    return folder / "exported"


@pytest.mark.slow
def test_the_run_and_the_exported_folder_answer_alike_and_end_by_the_template(folder, exported):
    assert (exported / "chat_template.jinja").read_text()
    messages = [{"role": "user", "content": "met dan?"}]
    answers = []
    for name in ("run", "exported"):
        model = load.load(folder / name)
        end = model.tokenizer.vocab["<|im_end|>"]
        assert end in model.defaults.stop_ids
        answers.append("".join(model.chat(messages, temperature=0.0, max_new_tokens=20)))
    assert answers[0] == answers[1]
    # it ended by itself, before the maximum
    assert answers[0].endswith("met.") and len(answers[0]) < 12
    settings = json.loads((folder / "exported" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [*model.tokenizer.end_ids]


def test_predictions_answer_the_last_user_turn_whatever_follows(folder, trained):
    messages = [{"role": "user", "content": "met dan?"}]
    rows = [{"messages": messages}, {"messages": [*messages, ANSWER]}]
    path = write_rows(folder / "new.jsonl", rows)
    run = restore.restore(folder / "run", sources=(str(path),), purpose="predict")
    first, second = predict.predict(run)
    model = load.load(folder / "run")
    answer = "".join(model.chat(messages, temperature=0.0, max_new_tokens=12))
    assert first["answer"] == second["answer"] == answer
    assert first["id"] == f"{path}:1"
    long = write_rows(folder / "long.jsonl", [{"messages": [ASK | {"content": "ann " * 150}]}])
    with pytest.raises(ValueError, match=r"long.jsonl:1: .* leaves no room for an answer of 12"):
        restore.restore(folder / "run", sources=(str(long),), purpose="predict")
    rows = [{"messages": m} for m in ([ANSWER], [ASK], [ASK | {"content": "ann " * 150}], [ASK])]
    mixed = write_rows(folder / "mixed.jsonl", rows)
    for sources in (mixed, long):
        model = restore.find(folder / "run", on_bad_row="skip").load("predict")
        lines = list(predict.stream(model, [str(sources)]))
        good = [line for line in lines if "answer" in line]
        assert [line["id"].rpartition(":")[2] for line in good] == (
            ["2", "4"] if len(lines) > 1 else []
        )
        assert "leaves no room for an answer of 12" in lines[min(2, len(lines) - 1)]["error"]
    assert len(lines) == 1


def test_the_report_and_the_evaluation_count_conversations(folder, trained):
    run = restore.restore(folder / "run")
    assert len(run.data) > len(run.rows)
    assert evaluate.evaluate(run, predict=True).examples == len(run.data)
    page = report.report(folder / "run", samples=20)
    assert f"{len(run.data)} validation examples" in page


def test_the_sample_answers_a_conversation_of_the_validation_data(folder, trained):
    run = restore.restore(folder / "run")
    text = run.task.sample(run.params, jax.random.key(0))
    asked = run.data.columns["messages"][0][0]["content"]
    assert f"<|im_start|>user\n{asked}<|im_end|>" in text
    assert text.endswith("met.")


def test_packed_conversations_have_the_losses_that_they_have_alone(folder, trained):
    run = restore.restore(folder / "run")
    task, rows = run.task, run.rows
    batch = rows.rows(np.arange(len(rows)), np.zeros(len(rows), int))
    assert batch["segment_ids"].max() > 1
    valid = {"valid": np.ones(len(rows), np.float32)}
    packed = task.loss(run.params, jax.tree.map(jnp.asarray, batch | valid), run.context)
    total = weight = 0.0
    apply = jax.jit(lambda tokens: task.model.apply({"params": run.params}, tokens))
    for messages in run.data.columns["messages"]:
        ids, marks = task._encode(messages)
        padded = np.zeros((1, 96), np.int32)
        padded[0, : len(ids)] = ids
        log_p = jax.nn.log_softmax(apply(padded))[0]
        scores = np.asarray(log_p)[np.arange(len(ids) - 1), ids[1:]]
        total -= (scores * marks[1:]).sum()
        weight += marks[1:].sum()
    assert float(packed.weight) == weight
    assert float(packed.total) == pytest.approx(total, rel=1e-5)


def test_rows_as_alpaca_has_them_become_conversations(folder):
    rows = [
        {"instruction": "Name a day.", "input": "", "output": "Monday"},
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Empty.", "input": "", "output": ""},
    ]
    path = write_rows(folder / "alpaca.jsonl", rows)
    config = config_of(folder, "alpaca")
    task = dataclasses.replace(config.task, instruction_column="instruction", system="Be brief.")
    data = dataclasses.replace(config.data, train=(str(path),), validation=(str(path),))
    _, read = prepare.read_data(dataclasses.replace(config, task=task, data=data), Chat)
    chats = read.train.columns["messages"]
    system = {"role": "system", "content": "Be brief."}
    assert chats == [
        [
            system,
            {"role": "user", "content": "Name a day."},
            {"role": "assistant", "content": "Monday"},
        ],
        [
            system,
            {"role": "user", "content": "Add.\n\n1 2"},
            {"role": "assistant", "content": "3"},
        ],
    ]
    assert "1 skipped: empty text" in str(read.train.counts)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([ASK], r"bad.jsonl:1: no message of the assistant"),
        ([ASK | {"role": "usr"}, ANSWER], r"bad.jsonl:1: unknown role .*did you mean 'user'\?"),
        ([ASK, ANSWER | {"role": "gpt"}], r"unknown role .*did you mean 'assistant'\?"),
        ([ASK, ANSWER | {"content": " "}], r"bad.jsonl:1: empty message in column 'messages'"),
        ([ASK, ANSWER | {"content": 3}], r"bad.jsonl:1: content .* is not a string"),
        ("ann?", r"bad.jsonl:1: column 'messages' is not a list of"),
        ([], r"bad.jsonl:1: no message in column 'messages'"),
    ],
)
def test_bad_rows_are_named_or_skipped_and_counted(folder, row, message):
    path = write_rows(folder / "bad.jsonl", [{"messages": row}, {"messages": [ASK, ANSWER]}])
    config = config_of(folder, "bad")
    data = dataclasses.replace(config.data, train=(str(path),), validation_fraction=0.0)
    with pytest.raises(ValueError, match=message):
        prepare.read_data(dataclasses.replace(config, data=data), Chat)
    data = dataclasses.replace(data, on_bad_row="skip")
    _, read = prepare.read_data(dataclasses.replace(config, data=data), Chat)
    assert len(read.train) == 1
    assert "1 skipped: " in str(read.train.counts)


def test_what_the_template_refuses_is_named_by_row(folder, exported):
    shutil.copytree(exported, folder / "strict")
    (folder / "strict" / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|im_start|>{{ m.role + ': ' + m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
    )
    system = {"role": "system", "content": "be brief"}
    rows = [{"messages": [ASK, ANSWER]}, {"messages": [system, ASK, ANSWER]}]
    path = write_rows(folder / "strict.jsonl", rows)
    config = config_of(folder, "strict_run", init=str(folder / "strict"))
    data = dataclasses.replace(config.data, train=(str(path),), validation_fraction=0.0)
    with pytest.raises(ValueError, match=r"strict.jsonl:2: .* refuses these messages: no system"):
        finetune(dataclasses.replace(config, data=data, dry_run=True))
    data = dataclasses.replace(data, on_bad_row="skip")
    summary = finetune(dataclasses.replace(config, data=data, dry_run=True))
    assert summary["dry_run"]
