"""Checkpoints survive full disks, corrupt files and killed processes."""

import pathlib
import re
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.checkpoint import store as ck
from jaxlm.config import CheckpointConfig

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def make_mesh(data, model):
    devices = jax.devices()[: data * model]
    return jax.make_mesh((data, model), ("data", "model"), (AxisType.Auto,) * 2, devices=devices)


def init(seed):
    a, b, c = jax.random.split(jax.random.key(seed), 3)
    params = {
        "backbone": {"w": jax.random.normal(a, (64, 128)), "b": jax.random.normal(b, (8,))},
        "head": {"table": jax.random.normal(c, (8, 24)).astype(jnp.bfloat16)},
    }
    _, opt_state = OPTIMIZER.update(params, OPTIMIZER.init(params), params)
    return {"params": params, "opt_state": opt_state}


def shardings(mesh):
    return jax.tree.map(
        lambda x: NamedSharding(mesh, P("data", "model") if x.ndim == 2 else P()),
        jax.eval_shape(init, 0),
    )


def state_on(mesh, seed):
    return jax.jit(init, static_argnums=0, out_shardings=shardings(mesh))(seed)


def at_any_step(target):
    """The argument of `restore`: the same target for every step."""
    return lambda step: target


def target_on(mesh, **json_items):
    put = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    return {**jax.tree.map(put, jax.eval_shape(init, 0), shardings(mesh)), **json_items}


def items(state, step):
    return {**state, "step": step, "config": {"dim": 8, "name": "é"}, "data": {"seen": step * 4}}


def table(step):
    """As in checkpoint_process.py."""
    return np.random.default_rng(step).standard_normal((64, 64), np.float32)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture
def mesh():
    return make_mesh(4, 2)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def run(tmp_path, mesh, lines):
    """A run folder with checkpoints of steps 1, 2 and 3, made from the seeds 1, 2 and 3."""
    with open_run(tmp_path, lines, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, items(state_on(mesh, step), step))
    return tmp_path


def open_run(run, lines, best_metric=None, best_is_lower=True, **config):
    return ck.Checkpoints(
        run / "checkpoints",
        CheckpointConfig(**config),
        best_metric=best_metric,
        best_is_lower=best_is_lower,
        report=lines.append,
    )


@pytest.mark.parametrize("shape", [(2, 4), (8, 1), (1, 1)])
def test_restores_bit_for_bit_on_another_mesh(run, lines, mesh, shape):
    other = make_mesh(*shape)
    with open_run(run, lines) as checkpoints:
        step, got = checkpoints.restore(
            at_any_step(target_on(other, step=None, config=None, data=None))
        )
    assert step == got.pop("step") == 3
    assert got.pop("config") == {"dim": 8, "name": "é"}
    assert got.pop("data") == {"seen": 12}
    assert got["params"]["backbone"]["w"].sharding == NamedSharding(other, P("data", "model"))
    assert_same(got, state_on(mesh, 3))
    assert lines == []


def test_saves_before_the_state_is_donated(tmp_path, mesh, lines):
    step = jax.jit(lambda s: jax.tree.map(lambda x: x * 2, s), donate_argnums=0)
    state = state_on(mesh, 0)
    want = jax.device_get(state)
    with open_run(tmp_path, lines) as checkpoints:
        checkpoints.save(5, state)
        for _ in range(3):
            state = step(state)
        checkpoints.wait()
        _, got = checkpoints.restore(at_any_step(target_on(mesh)))
    assert_same(got, want)


def test_scalars_empty_optimizer_states_and_random_keys(tmp_path, lines):
    saved = {
        "params": {"a": np.float32(1.5), "b": 3, "c": np.arange(3), "on": jnp.array([True, False])},
        "opt_state": optax.sgd(0.1).init({"a": jnp.zeros(2)}),
        "key": jax.random.key(7),
        "data": {},
    }
    with open_run(tmp_path, lines) as checkpoints:
        checkpoints.save(1, saved, wait=True)
        target = jax.eval_shape(lambda: {k: saved[k] for k in ("params", "opt_state", "key")})
        _, got = checkpoints.restore(at_any_step({**target, "data": None}))
    assert got["opt_state"] == saved["opt_state"]
    assert got["data"] == {}
    assert_same(jax.random.key_data(got["key"]), jax.random.key_data(saved["key"]))
    assert {k: v.tolist() for k, v in got["params"].items()} == {
        "a": 1.5,
        "b": 3,
        "c": [0, 1, 2],
        "on": [True, False],
    }


def test_a_relative_folder_and_a_step_saved_twice(tmp_path, mesh, lines, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ck.Checkpoints("checkpoints", CheckpointConfig(), report=lines.append) as checkpoints:
        checkpoints.save(1, items(state_on(mesh, 1), 1))
        monkeypatch.chdir("/")
        checkpoints.save(1, items(state_on(mesh, 2), 1))
    _, got = open_run(tmp_path, lines).restore(at_any_step(target_on(mesh)))
    assert_same(got, state_on(mesh, 1))
    assert lines == []


def test_keeps_the_newest_the_best_and_every_nth(tmp_path, lines):
    losses = {1: 5.0, 2: 4.0, 3: float("nan"), 4: 1.0, 5: None, 6: 4.0, 7: 3.0}
    for best_is_lower, kept in ((True, [3, 4, 6, 7]), (False, [1, 3, 6, 7])):
        run = tmp_path / str(best_is_lower)
        for step, loss in losses.items():  # reopened each time: what is best is known from disk
            with open_run(run, lines, "loss", best_is_lower, keep=1, keep_every=3) as checkpoints:
                metrics = None if loss is None else {"loss": loss, "other": 0.0}
                checkpoints.save(step, {"params": {"w": jnp.ones(3)}}, metrics=metrics)
        assert checkpoints.steps() == kept
        assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [str(s) for s in kept]
    with open_run(tmp_path / "no best", lines, "loss", keep=2, keep_best=False) as checkpoints:
        for step, loss in ((1, 0.0), (2, 1.0), (3, 2.0)):
            checkpoints.save(step, {"params": {"w": jnp.ones(3)}}, metrics={"loss": loss})
    assert checkpoints.steps() == [2, 3]


def test_no_checkpoint_gives_none_and_no_usable_one_is_an_error(tmp_path, run, lines, mesh):
    with open_run(tmp_path / "new", lines) as checkpoints:
        assert checkpoints.restore(at_any_step(target_on(mesh))) is None
    for step in (1, 2, 3):
        flip(largest_file(run / f"checkpoints/{step}/params"))
    with open_run(run, lines) as checkpoints:
        with pytest.raises(
            ck.CheckpointError, match=r"no checkpoint is usable .*3: checksums.*1: c"
        ):
            checkpoints.restore(at_any_step(target_on(mesh)))
        assert checkpoints.steps() == [1, 2, 3]
    assert lines == []


def largest_file(folder):
    """The file with the array data of an item."""
    return max(folder.glob("ocdbt.process_*/d/*"), key=lambda p: p.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_skips_corrupt_checkpoints_and_renames_them(run, lines, mesh):
    folder = run / "checkpoints"
    flip(largest_file(folder / "3/params"))
    torn = largest_file(folder / "2/opt_state")
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    (folder / "9").mkdir()
    (folder / "9.corrupt").mkdir()
    (folder / "8.orbax-checkpoint-tmp").mkdir()
    with open_run(run, lines) as checkpoints:
        step, got = checkpoints.restore(at_any_step(target_on(mesh, data=None)))
        assert step == 1
        assert got.pop("data") == {"seen": 4}
        assert_same(got, state_on(mesh, 1))
        assert [line.split(": ")[0] for line in lines] == [
            "checkpoint 9 is corrupt",
            "checkpoint 3 is corrupt",
            "checkpoint 2 is corrupt",
        ]
        assert all(line.endswith("; using 1") and "\n" not in line for line in lines)
        assert "checksums of params differ" in lines[1]
        names = {"1", "2.corrupt", "3.corrupt", "9.corrupt", "9.corrupt1"}
        assert {p.name for p in folder.iterdir()} == names
        checkpoints.save(2, items(state_on(mesh, 7), 2), wait=True)
        step, got = checkpoints.restore(at_any_step(target_on(mesh)))
        assert step == 2
        assert_same(got, state_on(mesh, 7))


@pytest.mark.parametrize("item", ["config", "manifest"])
def test_a_changed_digit_makes_a_json_item_corrupt(run, lines, mesh, item):
    path = run / f"checkpoints/3/{item}/data.json"
    text = path.read_text()
    changed = text.replace("8", "9", 1)
    assert changed != text
    path.write_text(changed)
    with open_run(run, lines) as checkpoints:
        step, _ = checkpoints.restore(at_any_step(target_on(mesh, config=None)))
    assert step == 2
    assert lines == [f"checkpoint 3 is corrupt: {item} has changed since it was written; using 2"]


def test_mismatched_parameters_are_an_error_but_not_corrupt(run, lines, mesh):
    target = target_on(mesh)
    backbone = target["params"]["backbone"]
    wrong = {
        "w": jax.ShapeDtypeStruct((64, 130), jnp.float32),
        "b": jax.ShapeDtypeStruct((8,), jnp.bfloat16),
        "c": backbone["b"],
    }
    target["params"] = {"backbone": wrong}
    message = (
        r"checkpoints.3: 4 of 4 arrays of params do not match this run: "
        r"backbone/b: stored \(8,\) float32, expected \(8,\) bfloat16; "
        r"backbone/c: stored nothing, expected \(8,\) float32; "
        r"backbone/w: stored \(64, 128\) float32, expected \(64, 130\) float32 and 1 more; use [^\n]*$"
    )
    with open_run(run, lines) as checkpoints:
        with pytest.raises(ck.CheckpointError, match=message):
            checkpoints.restore(at_any_step(target))
        with pytest.raises(ck.CheckpointError, match=r"no item 'ema' is stored$"):
            checkpoints.restore(at_any_step({"ema": target["opt_state"]}))
        assert checkpoints.steps() == [1, 2, 3]
    assert lines == []


def test_loads_only_parameters_or_part_of_them_from_a_run(run, mesh):
    params = target_on(mesh)["params"]
    assert_same(ck.load_params(run, params), state_on(mesh, 3)["params"])
    backbone = {"backbone": params["backbone"]}
    for folder, step in ((run, 2), (run / "checkpoints", 2), (run / "checkpoints/2", None)):
        got = ck.load_params(folder, backbone, step=step)
        assert_same(got, {"backbone": state_on(mesh, 2)["params"]["backbone"]})
    with pytest.raises(ck.CheckpointError, match="new/w: stored nothing, expected"):
        ck.load_params(run, {"new": params["backbone"]})
    with pytest.raises(ck.CheckpointError, match="no checkpoint here; is it a run folder"):
        ck.load_params(run / "elsewhere", params)
    with pytest.raises(
        ck.CheckpointError, match=r"no checkpoint of step 4; available steps: \[1, 2, 3\]"
    ):
        ck.load_params(run, params, step=4)
    flip(largest_file(run / "checkpoints/3/params"))
    with pytest.raises(ck.CheckpointError, match=r"3 is corrupt: .*; other steps: \[1, 2\]"):
        ck.load_params(run, params)
    assert (run / "checkpoints/3").is_dir()


def test_loaded_parameters_are_the_average_if_there_is_one(tmp_path, mesh):
    state, average = state_on(mesh, 1), state_on(mesh, 2)["params"]
    with open_run(tmp_path, []) as checkpoints:
        checkpoints.save(1, {"params": state["params"], "average": average}, wait=True)
    assert_same(ck.load_params(tmp_path, target_on(mesh)["params"]), average)


def test_json_items_and_a_description_without_arrays(run):
    assert ck.load_json(run, "config") == {"dim": 8, "name": "é"}
    assert ck.load_json(run, "data", step=2) == {"seen": 8}
    with pytest.raises(ck.CheckpointError, match="no JSON item 'x' is stored; there are step, con"):
        ck.load_json(run, "x")
    about = ck.describe(run)
    assert (about["step"], about["steps"], about["metrics"]) == (3, [1, 2, 3], {})
    assert about["params"] == {
        "backbone/b": {"shape": (8,), "dtype": "float32"},
        "backbone/w": {"shape": (64, 128), "dtype": "float32"},
        "head/table": {"shape": (8, 24), "dtype": "bfloat16"},
    }


def run_processes(*commands):
    """Runs checkpoint_process.py concurrently with each list of arguments: [(exit code, stdout, stderr)]."""
    script = pathlib.Path(__file__).with_name("checkpoint_process.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in commands
    ]
    try:
        outputs = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, outputs, strict=True)]


def table_target():
    return {"params": jax.ShapeDtypeStruct((64, 64), jnp.float32)}


def test_a_full_disk_is_reported_and_training_continues_until_max_failures(tmp_path):
    [(code, out, err)] = run_processes(["full", tmp_path])
    lines = out.splitlines()
    failed = re.compile(r"checkpoint (\d) was not saved: .*File too large.*; [\d.]+ GB free in ")
    assert [m[1] if (m := failed.match(line)) else line.split(": ")[0] for line in lines] == (
        ["2", "folder", "folder", "4", "5", "stopped", "folder"]
    ), out
    assert [line for line in lines if line.startswith("folder")] == (
        ["folder: 1", "folder: 1 3", "folder: 1 3"]
    )
    assert lines[5].startswith("stopped: 2 saves in a row failed (checkpoint.max_failures); the l")
    assert (code, err) == (0, "")


def test_killed_while_saving_leaves_the_previous_checkpoint(tmp_path, lines):
    [(code, out, err)] = run_processes(["kill", tmp_path / "checkpoints"])
    assert (code, err) == (-signal.SIGKILL, "")
    assert out.split() == ["1", "2.orbax-checkpoint-tmp"]
    with open_run(tmp_path, lines) as checkpoints:
        assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["1"]
        step, got = checkpoints.restore(at_any_step(table_target()))
    assert (step, lines) == (1, [])
    assert_same(got["params"], table(1))


def test_two_processes_save_restore_and_fall_back_together(tmp_path, lines):
    w = jnp.asarray(table(7))
    with ck.Checkpoints(tmp_path / "one", CheckpointConfig()) as checkpoints:
        checkpoints.save(7, {"params": {"w": w}, "data": {"seen": 7}})
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    arguments = ["pair", tmp_path / "two", tmp_path / "one"]
    results = run_processes([*arguments, 0, port], [*arguments, 1, port])
    assert [code for code, _, _ in results] == [0, 0], results
    common = ["of one: 7", "of two: 3", "fallen back to: 2", "again: 3 [1, 2, 3]"]
    first, second = (out.splitlines() for _, out, _ in results)
    assert second == common
    assert first == [
        *common[:2],
        "checkpoint 3 is corrupt: another process cannot read it; using 2",
        *common[2:],
    ]
    got = ck.load_params(tmp_path / "two", {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32)})
    assert_same(got["w"], table(3))
