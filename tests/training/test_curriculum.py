"""Stages of a run: their division of the steps, the position in the data, and interrupted runs."""

import contextlib
import dataclasses
import io
import random

import numpy as np
import pytest
from runs import (
    interrupted_after,
    losses,
    small_runs,
    stored_params,
    tiny,
    write_corpus,
    write_labelled,
)

from jaxlm.config import (
    CurriculumConfig,
    DataConfig,
    EncoderConfig,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)
from jaxlm.data import sources
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.loader import BatchAt
from jaxlm.report import overview
from jaxlm.run import prepare
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks import CausalLMConfig, ClassificationConfig, UL2Config, task_class
from jaxlm.tasks.downstream.classification import Classification
from jaxlm.training import curriculum, programs


def drawn(seed):
    """Stages with random ends, lengths and batch sizes, and the sizes of their data sets: fewer of longer rows."""
    rng = random.Random(seed)
    steps = rng.randint(4, 60)
    ends = tuple(sorted(rng.sample(range(1, steps), rng.randint(1, 3))))
    lengths = tuple(rng.choice([8, 16, 64]) for _ in ends)
    counts = tuple(8 * rng.randint(1, 4) + i for i, _ in enumerate(ends))
    config = TrainConfig(
        task=CausalLMConfig(),
        steps=steps,
        batch_size=40,
        data=DataConfig(seq_len=64),
        optimizer=dataclasses.replace(OptimizerConfig(), warmup_steps=0),
        curriculum=CurriculumConfig(ends=ends, seq_lens=lengths, batch_sizes=counts),
    )
    tokens = rng.randint(1000, 50_000)
    stages = curriculum.stages(config, task_class(config.task))
    return config, stages, [-(-tokens // stage.seq_len) for stage in stages]


@pytest.mark.parametrize("seed", range(20))
def test_stages_partition_the_steps_and_positions_continue(seed):
    config, stages, sizes = drawn(seed)
    steps = [step for stage in stages for step in range(stage.first, stage.last + 1)]
    assert steps == list(range(1, config.steps + 1))
    assert [(s.batch_size, s.seq_len) for s in stages] == config.batch_shapes
    assert all(s.config.curriculum == CurriculumConfig() for s in stages)
    assert curriculum.position(stages, sizes, 0) == (0, 0)
    read = 0
    for step in steps:
        number, start = curriculum.position(stages, sizes, step - 1)
        stage = stages[number]
        assert stage.first <= step <= stage.last
        after, at = curriculum.position(stages, sizes, step)
        end = start + stage.batch_size
        if sizes[after] == sizes[number]:
            assert at == end
        else:
            # the same fraction of an epoch, rounded down to an example
            assert at / sizes[after] <= end / sizes[number] < (at + 1) / sizes[after]
        read += stage.batch_size * stage.seq_len
        assert curriculum.tokens(stages, step) == read
    assert curriculum.position(stages, sizes, config.steps)[0] == len(stages) - 1


def test_without_a_curriculum_the_position_matches_older_checkpoints():
    config = TrainConfig(task=CausalLMConfig(), batch_size=6)
    stages = curriculum.stages(config, task_class(config.task))
    assert [str(s) for s in stages] == ["steps 1 to 1,000: 6 rows of 256 tokens"]
    assert stages[0].config == config
    for step in (0, 1, 999, 1000):
        assert curriculum.position(stages, [77], step) == (0, 6 * step)


@dataclasses.dataclass
class Numbers:
    """Examples that contain their own index."""

    size: int

    def __len__(self):
        return self.size

    def rows(self, indices, epochs):
        return {"index": indices, "epoch": epochs}


def sequence(config, datasets, processes):
    """The examples read by all steps and processes of a run: (epoch, example) in the order of the global batches."""
    stages = curriculum.stages(config, task_class(config.task))
    seen = []
    for step in range(config.steps):
        number, start = curriculum.position(stages, [len(d) for d in datasets], step)
        rows = np.split(np.arange(stages[number].batch_size), processes)
        parts = [
            BatchAt(datasets[number], stages[number].batch_size, 3, mine, start)(0) for mine in rows
        ]
        seen += [(e, i) for p in parts for e, i in zip(p["epoch"].tolist(), p["index"].tolist())]
    return seen


def test_growing_batches_read_the_same_examples_as_small_ones_on_any_number_of_processes():
    plain = tiny_stages(steps=24, batch_size=4)
    # 6 steps of 4, 5 of 8 and one of 32 are 24 of 4
    ramp = tiny_stages(
        steps=12,
        batch_size=32,
        curriculum=CurriculumConfig(ends=(6, 11), batch_sizes=(4, 8)),
    )
    data = Numbers(23)
    expected = sequence(plain, [data], 1)
    for processes in (1, 2, 4):
        assert sequence(ramp, [data] * 3, processes) == expected
    # and with rows of another length on the way
    mixed = dataclasses.replace(
        ramp, curriculum=CurriculumConfig(ends=(6, 11), seq_lens=(64, 128), batch_sizes=(4, 8))
    )
    sets = [Numbers(23), Numbers(12), Numbers(6)]
    one, two, four = (sequence(mixed, sets, processes) for processes in (1, 2, 4))
    assert one == two == four
    # 24 of 23 examples, then 12 * 24 // 23 + 40 of 12
    assert one[24][0] == 1
    assert {e for e, _ in one[24:64]} == {1, 2, 3, 4}


def tiny_stages(**changes):
    optimizer = dataclasses.replace(OptimizerConfig(), warmup_steps=0)
    return TrainConfig(**{"task": CausalLMConfig(), "optimizer": optimizer, **changes})


def test_target_rows_of_a_set_length_shrink_with_the_input():
    config = tiny_stages(
        task=UL2Config(target_len=100), curriculum=CurriculumConfig(ends=(10,), seq_lens=(64,))
    )
    assert [
        s.config.task.target_len for s in curriculum.stages(config, task_class(config.task))
    ] == [25, 100]


def test_text_is_tokenized_once_for_all_lengths(tmp_path, monkeypatch):
    path = write_labelled(tmp_path)
    config = tiny_stages(
        model=EncoderConfig(dim=16, num_layers=1, num_heads=2, max_len=32, vocab_size=64),
        task=ClassificationConfig(),
        data=DataConfig(train=(str(path),), validation_fraction=0.2, seq_len=24),
        curriculum=CurriculumConfig(ends=(3, 5), seq_lens=(8, 16)),
    )
    config, corpora = prepare.read_data(config, Classification)
    tokenizer = tokenizers.train(list(corpora.texts()), TokenizerConfig(kind="char", vocab_size=64))
    seen = []
    encode = tokenizers.Tokenizer.encode_batch
    count = lambda self, texts: seen.extend(texts) or encode(self, texts)
    monkeypatch.setattr(tokenizers.Tokenizer, "encode_batch", count)
    plan = curriculum.build(config, Classification, tokenizer, corpora)
    assert len(seen) == 60
    rows = [train.rows(np.arange(4), np.zeros(4)) for train in plan.train]
    assert [r["tokens"].shape for r in rows] == [(4, 8), (4, 16), (4, 24)]
    # the same texts, cut later
    assert (rows[0]["tokens"][:, :7] == rows[2]["tokens"][:, :7]).all()
    assert plan.validation.rows(np.arange(4), np.zeros(4))["tokens"].shape == (4, 24)
    documents = sources.load_texts(config.data, "train")
    assert documents.token_documents(tokenizer) is documents.token_documents(tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curriculum")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def meshes():
    with small_runs():
        yield


@pytest.fixture(scope="module")
def compiled():
    """Shapes of the batches of all steps; each stage is compiled once for all sessions of these runs."""
    calls, steps, compile_ = [], {}, programs.Programs._compile

    def once(self, segment, turn):
        stage = self.plan.stages[segment.stage]
        shape = stage.batch_size, stage.seq_len
        if shape not in steps:
            steps[shape] = compile_(self, segment, turn)

        class Noted:
            def __call__(_, state, batch, reference):
                calls.append(batch["tokens"].shape)
                return steps[shape](state, batch, reference)

            memory_analysis = steps[shape].memory_analysis

        return Noted()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs.Programs, "_compile", once)
        yield calls, steps


def staged(folder, name):
    # but for the first stage the run of other tests, whose compiled programs are at hand
    return tiny(folder, name, curriculum=STAGES)


# checkpoints are at 4, within a stage, and at 8, the end of it
STAGES = CurriculumConfig(ends=(8,), seq_lens=(8,), batch_sizes=(4,))
SHAPES = [(4, 8)] * 8 + [(8, 16)] * 4


@pytest.fixture(scope="module")
def unbroken(folder, compiled):
    """Summary, shapes of all batches and output of an uninterrupted run."""
    calls, steps = compiled
    with contextlib.redirect_stdout(io.StringIO()) as out:
        summary = pretrain(staged(folder, "unbroken"))
    return summary, list(calls), list(steps.values()), out.getvalue()


@pytest.mark.slow
def test_every_stage_has_its_batches_and_the_summary_counts_their_tokens(unbroken):
    summary, shapes, steps, out = unbroken
    assert shapes == SHAPES
    assert summary["tokens"] == sum(rows * length for rows, length in SHAPES)
    assert f"128 per step at the end, {summary['tokens']} in total" in out
    for line in ("steps 1 to 8: 4 rows of 8 tokens", "steps 9 to 12: 8 rows of 16 tokens"):
        assert out.count(line) == 2, "once with the data, once in the table"
    assert len(steps) == 2
    # what the table and a dry run say is what the largest stage needs
    needs = [overview.memory(step) for step in steps]
    assert summary["memory"] == max(needs, key=lambda need: sum(need.values()))
    assert summary["memory"] == needs[1] != needs[0]


@pytest.mark.slow
def test_a_run_killed_within_a_stage_and_at_its_end_equals_an_uninterrupted_one(
    folder, unbroken, compiled
):
    config = staged(folder, "killed")
    calls, _ = compiled
    calls.clear()
    # after the first interruption it resumes from step 4, after the second from step 8
    for kill in (5, 10):
        with interrupted_after(kill):
            pretrain(config)
    pretrain(config)
    assert losses(folder / "killed") == losses(folder / "unbroken")
    expected = stored_params(folder / "unbroken")
    for name, value in stored_params(folder / "killed").items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    # the metrics of a step are fetched in the next
    assert calls == SHAPES[:6] + SHAPES[4:11] + SHAPES[8:]


def test_an_indivisible_batch_of_a_stage_is_rejected_by_name(folder):
    config = dataclasses.replace(staged(folder, "odd"), mesh=MeshConfig(data=8))
    with pytest.raises(
        ValueError, match=r"curriculum.batch_sizes\[0\]=4 is not a multiple of the 8"
    ):
        pretrain(config)
