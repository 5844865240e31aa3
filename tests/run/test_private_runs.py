"""Whole private runs: the same on one device and on eight, killed or not; adapters, people, card; what is refused."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from runs import interrupted_after, losses, small_runs, stored_params, tiny, write_corpus

from jaxlm.config import (
    CheckpointConfig,
    CurriculumConfig,
    EvaluationConfig,
    FinetuneConfig,
    LoraConfig,
    MeshConfig,
    PrivacyConfig,
)
from jaxlm.run import convert
from jaxlm.run.finetune import finetune
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks import ClassificationConfig, EmbeddingConfig, SentencePairConfig, UL2Config
from jaxlm.training import private_run

PRIVATE = PrivacyConfig(epsilon=8.0, delta=1e-3, noise_seed=1, public=("tokenizer",))
KEEP = CheckpointConfig(every=4, keep_best=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    write_corpus(folder)
    rng = np.random.default_rng(1)
    with (folder / "people.jsonl").open("w") as file:
        for i in range(60):
            word, label = [("good", "pos"), ("bad", "neg")][i % 2]
            row = {
                "text": f"a {word} film, {rng.integers(100)}",
                "label": label,
                "who": f"p{i % 13}",
            }
            file.write(json.dumps(row) + "\n")
    with small_runs():
        yield folder


def private(folder, name="run", privacy=PRIVATE, **changes):
    return tiny(folder, name, privacy=privacy, **{"steps": 4, "checkpoint": KEEP, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(epsilon=8.0), "needs a privacy.delta"),
        (dict(delta=1e-5), "privacy.delta=1e-05 has no effect without a budget"),
        (dict(unit="who"), "privacy.unit=who has no effect without a budget"),
        (dict(epsilon=-1.0, delta=1e-5), "epsilon=-1.0 must be positive"),
        (dict(epsilon=float("nan"), delta=1e-5), "epsilon=nan is not a finite number"),
        (dict(epsilon=1.0, delta=1.0), "delta=1.0 is not between 0 and 1"),
        (dict(epsilon=1.0, delta=1e-5, clip=0.0), "clip=0.0 must be positive"),
        (dict(epsilon=1.0, delta=1e-5, microbatch=0), "microbatch=0 must be at least 1"),
        (dict(epsilon=1.0, delta=1e-5, noise_seed=-1), "noise_seed=-1 must not be negative"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PrivacyConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(accumulate=2), "accumulate=2 has no effect in private training"),
        (dict(checkpoint=CheckpointConfig()), "checkpoint.keep_best=True selects a model"),
        (dict(evaluation=EvaluationConfig(patience=2)), "evaluation.patience=2 stops the run"),
        (
            dict(curriculum=CurriculumConfig(ends=(2,), seq_lens=(8,))),
            "cannot be combined with a curriculum",
        ),
    ],
)
def test_options_that_break_the_guarantee_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        private(tmp_path, **changes)


def test_several_seeds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="seeds=2: each run on the same data spends"):
        FinetuneConfig(task=ClassificationConfig(), privacy=PRIVATE, checkpoint=KEEP, seeds=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(privacy=dataclasses.replace(PRIVATE, public=())), "say --privacy.public tokenizer"),
        (dict(batch_size=64), "batch_size=64 is more than the 34 units of data.train"),
        (dict(privacy=dataclasses.replace(PRIVATE, delta=0.1)), "is not less than 1 / 34 units"),
        (
            dict(privacy=dataclasses.replace(PRIVATE, epsilon=1e-7, delta=1e-12)),
            "no noise keeps 4 steps within that budget",
        ),
        (dict(privacy=dataclasses.replace(PRIVATE, unit="who")), "does not read records"),
        (
            dict(privacy=dataclasses.replace(PRIVATE, microbatch=3), mesh=MeshConfig(data=2)),
            "privacy.microbatch=3 is not a multiple of the 2 devices",
        ),
    ],
)
def test_runs_that_cannot_be_private_are_refused(folder, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        pretrain(private(folder, "refused", **changes))


class _Task:
    """Enough of a task to ask whether it can be trained privately."""

    def __init__(self, settings, coupled=False):
        self.settings, self.coupled, self.name = settings, coupled, "one"

    def init_state(self):
        return None


def test_rows_and_losses_of_several_examples_are_refused():
    units = lambda task, rows: private_run.units_of(None, task, rows, None)
    with pytest.raises(ValueError, match="compares the examples of a batch"):
        units(_Task(EmbeddingConfig(), coupled=True), None)
    with pytest.raises(ValueError, match="makes rows of several texts"):
        units(_Task(UL2Config()), object())
    with pytest.raises(ValueError, match=r"task.class_weights cannot be combined"):
        units(_Task(ClassificationConfig(class_weights=("a=2",))), None)
    with pytest.raises(ValueError, match="makes rows of several texts"):
        units(_Task(SentencePairConfig(kind="next")), object())


# ---- whole runs


@pytest.fixture(scope="module")
def whole(folder):
    pretrain(private(folder, "whole", steps=12))
    return folder / "whole"


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(folder, whole):
    with interrupted_after(7):
        pretrain(private(folder, "killed", steps=12))
    summary = pretrain(private(folder, "killed", steps=12))
    assert losses(folder / "killed") == losses(whole)
    for a, b in zip(*(jax.tree.leaves(stored_params(folder / n)) for n in ("killed", "whole"))):
        np.testing.assert_array_equal(a, b)
    assert 7.9 < summary["privacy"]["epsilon"] <= 8
    assert summary["privacy"]["steps"] == 12
    assert summary["privacy"]["repeatable_noise"] is True


@pytest.mark.slow
def test_eight_devices_compute_what_one_computes(folder, whole):
    for mesh in (MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2)):
        name = f"mesh{mesh.data}"
        pretrain(private(folder, name, steps=12, mesh=mesh))
        for a, b in zip(*(jax.tree.leaves(stored_params(f)) for f in (folder / name, whole))):
            # Adam divides differences of rounding by small moments
            np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.slow
def test_the_noise_is_a_secret_of_the_run(folder):
    hidden = dataclasses.replace(PRIVATE, noise_seed=None)
    config = private(folder, "secret", privacy=hidden)
    with interrupted_after(3):
        pretrain(config)
    key = folder / "secret" / private_run.KEY_FILE
    assert key.stat().st_mode & 0o077 == 0
    assert 0 <= int(key.read_text()) < 2**63
    key.unlink()
    # nothing was saved yet, so another secret is made
    assert pretrain(config)["privacy"]["repeatable_noise"] is False
    pretrain(private(folder, "secret2", privacy=hidden))
    assert losses(folder / "secret") != losses(folder / "secret2")


@pytest.mark.slow
def test_people_adapters_heads_and_the_card(folder):
    pretrain(tiny(folder, "base", steps=1))
    data = dataclasses.replace(
        tiny(folder).data, train=(str(folder / "people.jsonl"),), validation_fraction=0.2
    )
    common = dict(
        init=str(folder / "base"),
        task=ClassificationConfig(labels=("neg", "pos")),
        data=data,
        checkpoint=KEEP,
        mesh=MeshConfig(),
        steps=3,
        batch_size=4,
        optimizer=tiny(folder).optimizer,
    )
    people = PrivacyConfig(
        epsilon=8.0, delta=1e-3, unit="who", rows_per_unit=3, microbatch=2, noise_seed=2
    )
    for name, how in (("lora", dict(lora=LoraConfig(rank=2))), ("head", dict(train_only="head"))):
        run = folder / name
        summary = finetune(FinetuneConfig(run_dir=str(run), privacy=people, **common, **how))
        assert summary["privacy"]["units"] == 13
        assert summary["privacy"]["rows_per_unit"] == 3
        before, after = stored_params(folder / "base"), stored_params(run)
        same = [
            (x == after[path]).all() for path, x in before.items() if path.startswith("backbone")
        ]
        assert same
        assert all(same)
    convert.convert(folder / "head", folder / "exported")
    card = (folder / "exported" / "README.md").read_text()
    assert "differentially private" in card
    assert "for each who, at most 3 rows of one in a step" in card
    assert "who knows its seed" in card
    assert "in each of 3 steps" in card
    unknown = dataclasses.replace(people, unit="whom")
    with pytest.raises(ValueError, match="no row has a value in a column 'whom'"):
        finetune(FinetuneConfig(run_dir=str(folder / "x"), privacy=unknown, **common))
    common["task"] = ClassificationConfig()
    with pytest.raises(ValueError, match=r"say --privacy.public settings"):
        finetune(FinetuneConfig(run_dir=str(folder / "x"), privacy=people, **common))


def test_a_run_that_began_with_other_noise_is_not_resumed(tmp_path):
    class Run:
        config = private(tmp_path)

        def facts(self, step):
            more = dict(
                unit="row", units=9, rows_per_unit=1, neighbours="one", clip=1.0, steps=steps
            )
            more |= dict(delta=1e-5, budget=3.0, stated_public=[], repeatable_noise=False)
            return more | dict(noise_multiplier=noise, sampling_probability=0.5, accountant="x 1")

    noise, steps = 1.0, 4
    private_run.write_facts(Run(), tmp_path)
    noise = 1.25
    private_run.write_facts(Run(), tmp_path)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    private_run.write_facts(Run(), tmp_path)
    noise = 1.0
    with pytest.raises(
        ValueError, match=r"began with noise_multiplier 1.25, and it would be 1 now"
    ):
        private_run.write_facts(Run(), tmp_path)
    # not the fault of another version of the accountant
    steps = 8
    with pytest.raises(ValueError, match="is for 4 steps, and it has 8 now: set steps back"):
        private_run.write_facts(Run(), tmp_path)
    path = tmp_path / private_run.FACTS_FILE
    known = json.loads(path.read_text())
    path.write_text(json.dumps({name: x for name, x in known.items() if name != "steps"}))
    with pytest.raises(ValueError, match="steps is 'None': so the guarantee of this private run"):
        private_run.write_facts(Run(), tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="the guarantee of this private run is unknown"):
        private_run.statement(tmp_path, 4)
