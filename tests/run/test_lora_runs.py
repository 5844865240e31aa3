"""Runs with adapters: the base stays, only what is trained has an optimizer state, exports compute the same."""

import dataclasses
import json

import jax
import jax.numpy as jnp
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

from jaxlm import hf
from jaxlm.checkpoint import format
from jaxlm.config import (
    CheckpointConfig,
    DataConfig,
    FinetuneConfig,
    GroupConfig,
    LoraConfig,
    OptimizerConfig,
    PhaseConfig,
)
from jaxlm.hf import peft
from jaxlm.models import lora
from jaxlm.run import convert, load, restore
from jaxlm.run.evaluate import evaluate
from jaxlm.run.finetune import finetune
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks import CausalLMConfig, ClassificationConfig

# whole runs
pytestmark = pytest.mark.slow

LORA = LoraConfig(rank=2, alpha=4, targets=("all-linear", "embedding"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    write_corpus(folder)
    write_labelled(folder)
    with small_runs():
        pretrain(tiny(folder, "base", steps=2))
        convert.convert(folder / "base", folder / "hf_base")
        yield folder


def config_of(folder, name, **changes):
    config = FinetuneConfig(
        name=name,
        run_dir=str(folder / name),
        init=str(folder / "hf_base"),
        lora=LORA,
        task=CausalLMConfig(),
        data=DataConfig(
            train=(str(folder / "corpus.txt"),),
            text_unit="line",
            validation_fraction=0.2,
            seq_len=16,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
        checkpoint=CheckpointConfig(every=4, keep=9),
        steps=8,
        batch_size=8,
        log_every=1,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def run(folder):
    """A language model with adapters."""
    return finetune(config_of(folder, "run"))


def split(params):
    """The parameters of adapters that are trained, and the rest."""
    trained = {k: x for k, x in params.items() if k.endswith(("_lora_a", "_lora_b"))}
    return trained, {k: x for k, x in params.items() if k not in trained}


def logits(folder, path, tokens):
    model = load.load(folder / path)
    return np.asarray(
        jax.jit(lambda p, t: model.model.apply({"params": p}, t))(model.params, tokens)
    )


TOKENS = np.arange(24).reshape(2, 12) % 20 + 4


def test_the_base_stays_bit_for_bit_and_the_adapters_learn(folder, run):
    first = hf.load(folder / "hf_base").params
    trained, rest = split(stored_params(folder / "run"))
    for path, x in lora.flat(first).items():
        np.testing.assert_array_equal(rest.pop(path), x)
    assert all(path.endswith("_lora_scale") and (x == 2).all() for path, x in rest.items())
    before, _ = split(stored_params(folder / "run", step=4))
    assert all((x != before[path]).any() for path, x in trained.items())
    seen = losses(folder / "run")
    assert seen[8][0] < seen[1][0]


def test_only_what_is_trained_has_an_optimizer_state(folder, run):
    arrays = format.read_manifest(folder / "run" / "checkpoints" / "8")["arrays"]
    trained, _ = split(stored_params(folder / "run"))
    numbers = lambda x: int(np.prod(x["shape"]))
    state = sum(map(numbers, arrays["opt_state"].values()))
    count = sum(x.size for x in trained.values())
    # two moments of each, and counters
    assert 2 * count <= state <= 2 * count + 8
    whole = finetune(config_of(folder, "whole", lora=LoraConfig(), dry_run=True))
    assert run["memory"]["argument_bytes"] < 0.75 * whole["argument_bytes"]


def test_a_run_stopped_and_resumed_equals_an_uninterrupted_one(folder, run):
    config = config_of(folder, "stopped")
    with interrupted_after(6):
        finetune(config)
    finetune(config)
    assert losses(folder / "stopped") == losses(folder / "run")
    expected = stored_params(folder / "run")
    for path, x in stored_params(folder / "stopped").items():
        np.testing.assert_array_equal(x, expected[path])


def test_the_merged_export_the_adapter_and_the_run_compute_the_same(folder, run):
    convert.convert(folder / "run", folder / "merged")
    line = convert.convert(folder / "run", folder / "adapter", adapter=True)
    assert line.startswith("the adapter of step 8")
    restored = restore.restore_model(folder / "run")
    apply = jax.jit(lambda p, t: restored.task.model.apply({"params": p}, t))
    assert lora.has_adapters(restored.params)
    expected = np.asarray(apply(restored.params, TOKENS))
    assert np.abs(expected - logits(folder, "hf_base", TOKENS)).max() > 1e-2
    for name in ("run", "merged", "adapter"):
        np.testing.assert_allclose(logits(folder, name, TOKENS), expected, atol=1e-5)
    settings = json.loads((folder / "adapter" / peft.CONFIG).read_text())
    assert settings["base_model_name_or_path"] == str(folder / "hf_base")
    assert (settings["r"], settings["lora_alpha"]) == (2, 4)
    with pytest.raises(ValueError, match="the run has no adapters"):
        convert.convert(folder / "base", folder / "none", adapter=True)


def test_a_run_may_start_from_a_run_with_adapters_or_from_an_adapter(folder, run):
    convert.convert(folder / "run", folder / "merged2")
    expected = logits(folder, "merged2", TOKENS)
    convert.convert(folder / "run", folder / "adapter2", adapter=True)
    none = OptimizerConfig(learning_rate=1e-12, warmup_steps=0)
    starts = {
        "from_run": dict(init=str(folder / "run"), lora=LoraConfig(rank=3, targets=("query",))),
        "from_adapter": dict(init=str(folder / "adapter2"), lora=LoraConfig()),
        "onto_base": dict(adapter=str(folder / "adapter2"), lora=LoraConfig()),
        "further": dict(adapter=str(folder / "adapter2"), lora=LORA),
    }
    for name, changes in starts.items():
        finetune(config_of(folder, name, steps=1, optimizer=none, **changes))
        np.testing.assert_allclose(logits(folder, name, TOKENS), expected, atol=2e-5)
    # trained further: the same adapters beside the same base, not new ones
    trained, _ = split(stored_params(folder / "further"))
    before, _ = split(stored_params(folder / "run"))
    for path, x in trained.items():
        np.testing.assert_allclose(x, before[path], atol=1e-6)
    other = LoraConfig(rank=3, targets=("query",))
    with pytest.raises(
        ValueError, match=r"the adapter is of rank 2 on down, embedding, key, .* not"
    ):
        finetune(config_of(folder, "wrong", adapter=str(folder / "adapter2"), lora=other))
    adapter = str(folder / "adapter2")
    with pytest.raises(ValueError, match="is an adapter, and so is --adapter"):
        finetune(config_of(folder, "two", init=adapter, adapter=adapter))


def test_a_new_head_is_trained_with_the_adapters_and_saved_beside_them(folder):
    data = DataConfig(train=(str(folder / "labelled.jsonl"),), validation_fraction=0.2, seq_len=16)
    task = ClassificationConfig(pooling="last", dropout=0.0)
    config = config_of(folder, "classes", task=task, data=data, steps=12, lora=LoraConfig(rank=2))
    summary = finetune(config)
    head = {k: x for k, x in stored_params(folder / "classes").items() if k.startswith("head/")}
    before = stored_params(folder / "classes", step=4)
    assert head and all((x != before[path]).any() for path, x in head.items())
    for path, x in lora.flat(hf.load(folder / "hf_base").params).items():
        np.testing.assert_array_equal(before[path], x)
    restored = restore.restore(folder / "classes")
    assert evaluate(restored).metrics["loss"] == pytest.approx(
        summary["evaluation"]["loss"], rel=1e-5
    )
    convert.convert(folder / "classes", folder / "classes_adapter", adapter=True)
    settings = json.loads((folder / "classes_adapter" / peft.CONFIG).read_text())
    assert settings["task_type"] == "SEQ_CLS"
    assert settings["modules_to_save"] == ["score"]
    loaded = hf.load(folder / "classes_adapter")
    tokens = jnp.asarray(TOKENS)
    segments = jnp.ones_like(tokens)
    np.testing.assert_allclose(
        loaded.model.apply({"params": loaded.params}, tokens, segment_ids=segments),
        restored.task.model.apply({"params": restored.params}, tokens, segment_ids=segments),
        atol=1e-5,
    )


def test_groups_and_phases_divide_the_adapters(folder):
    upper = GroupConfig(name="upper", params=("*blocks[-1:]*",), rate=0.5)
    lower = GroupConfig(name="lower", params=("*",), frozen=True)
    phases = (PhaseConfig(end=4, groups=(upper, lower)), PhaseConfig(groups=(upper,)))
    finetune(config_of(folder, "phases", phases=phases, lora=LoraConfig(rank=2)))
    early, base = split(stored_params(folder / "phases", step=4))
    late, after = split(stored_params(folder / "phases", step=8))
    for path, x in base.items():
        np.testing.assert_array_equal(after[path], x)
    b = [path for path in early if path.endswith("_lora_b")]
    assert all((early[path][0] == 0).all() and (early[path][1] != 0).any() for path in b)
    assert all((late[path][0] != 0).any() for path in b)
    wrong = (GroupConfig(name="all", params=("*/attn/query",)),)
    with pytest.raises(ValueError, match="'all' has no parameter left"):
        finetune(config_of(folder, "wrong_group", groups=wrong, dry_run=True))


def test_adapters_of_an_adapter_of_another_base_are_refused(folder, run):
    convert.convert(folder / "run", folder / "adapter3", adapter=True)
    other = tiny(folder, "other", steps=2)
    pretrain(dataclasses.replace(other, model=dataclasses.replace(other.model, dim=24)))
    convert.convert(folder / "other", folder / "hf_other")
    with pytest.raises(ValueError, match=r"is \[16, 2\], but .* needs \[24, 2\]"):
        hf.load(folder / "adapter3", base=folder / "hf_other")
    config = config_of(folder, "mismatch", init=str(folder / "hf_other"), lora=LoraConfig())
    with (
        pytest.warns(UserWarning, match="was trained on .*hf_base, and is put on .*hf_other"),
        pytest.raises(ValueError, match="it is an adapter of another base"),
    ):
        finetune(dataclasses.replace(config, adapter=str(folder / "adapter3")))
