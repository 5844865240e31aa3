"""Plans of a small run on simulated devices: memory is that of the arrays, meshes are compared, and pages are made."""

import dataclasses
import json
import types

import jax
import pytest
from runs import tiny

from jaxlm import sharding
from jaxlm.cli import main as cli
from jaxlm.cli import plan as plan_command
from jaxlm.config import ComputeConfig, FinetuneConfig, MeshConfig
from jaxlm.plan import arithmetic, chips, compiled, lines, meshes, page, planner, subject, topology
from jaxlm.plan.compiled import DoesNotFit
from jaxlm.plan.options import Options

CPU = topology.parse("cpu:8")
# speeds that give round numbers
FAST = dataclasses.replace(
    chips.CHIPS["cpu"], bandwidth=1e12, link=1e9, network=1e8, efficiency=0.5
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    # the folder has no corpus: a plan reads no text
    config = tiny(tmp_path_factory.mktemp("plan"), mesh=MeshConfig(data=2, fsdp=2, tensor=2))
    return subject.of(config)


@pytest.fixture
def speeds(monkeypatch):
    """CPUs with a data sheet."""
    monkeypatch.setitem(chips.CHIPS, "cpu", FAST)
    monkeypatch.setitem(chips.PEAK_FLOPS, "cpu", 1e12)


@pytest.fixture(scope="module")
def plan(run):
    """A plan of the best mesh on devices with a data sheet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(chips.CHIPS, "cpu", FAST)
        patch.setitem(chips.PEAK_FLOPS, "cpu", 1e12)
        options = Options(topology=CPU, any_mesh=True, trials=1, price=3.0)
        said = []
        result = planner.plan(run.config, options, said.append)
    assert len(said) == 2  # a mesh and an option; CPUs have no estimate of a few layers
    return json.loads(json.dumps(result))


def test_memory_on_paper_is_that_of_the_compiled_arguments(run, monkeypatch):
    mesh = sharding.make_mesh(run.config.mesh, CPU.devices())
    programs = []
    compile_one = compiled._compile
    monkeypatch.setattr(
        compiled, "_compile", lambda lowered: programs.append(compile_one(lowered)) or programs[0]
    )
    found = compiled.compile_step(run, mesh, CPU)
    memory = arithmetic.memory(run, mesh)
    arguments = programs[0].memory_analysis().argument_size_in_bytes
    # besides them there are counters of steps
    assert arguments - 64 <= memory.parameters + memory.optimizer + memory.batch <= arguments
    # the rows over data and fsdp
    assert memory.batch == sum(x.size * 4 for x in run.batch(mesh).values()) / 4
    assert memory.gradients == memory.parameters
    assert found.memory.total >= arguments + memory.gradients
    assert {axis for c in found.collectives for axis in c.axes} == {"data", "fsdp", "tensor"}


def test_the_plan_says_what_the_chosen_mesh_needs(plan, run):
    assert plan["devices"] == 8
    memory = plan["memory"]
    kinds = ("parameters", "optimizer", "batch", "gradients", "activations")
    assert memory["total"] == pytest.approx(sum(memory[kind] for kind in kinds), abs=5)
    assert memory["fits"] and memory["source"] == "compiler" and memory["limit"] is None
    time = plan["time"]
    assert time["least"] == max(time["compute"], time["overlapped"]) + time["exposed"]
    assert time["expected"] == 2 * time["least"]
    # 8 rows of 16 tokens
    assert plan["tokens_per_second"] == pytest.approx(128 / time["expected"])
    # 3 an hour for each of 8 devices
    hours = 1e9 / plan["tokens_per_second"] / 3600
    assert plan["cost_per_billion_tokens"] == pytest.approx(3 * 8 * hours)
    assert plan["mfu"] == pytest.approx(run.flops_per_step / time["expected"] / 8e12)


def test_the_best_mesh_is_the_fastest_on_paper_that_fits(plan):
    rows = plan["meshes"]
    assert rows[0]["result"] == "compiled, fits"
    assert rows[0]["mesh"] == plan["mesh"]
    on_paper = [row["seconds"] for row in rows if row["seconds"]]
    assert on_paper == sorted(on_paper)
    impossible = [row for row in rows if row["seconds"] is None]
    # two heads cannot be split over four devices
    assert any("mesh.tensor=4 does not divide" in row["result"] for row in impossible)
    assert len(rows) == 10


def test_the_option_that_helps_most_comes_first_and_was_compiled(plan):
    first, *rest = plan["knobs"]
    assert first["source"] == "compiled"
    assert {k["source"] for k in rest} == {"arithmetic"}
    # less is sent for each token in a larger batch
    assert (first["option"], first["value"], first["helps"]) == ("batch_size", 16, True)
    assert first["speed"] > 1.2
    halves = next(k for k in rest if k["option"] == "accumulate")
    assert halves["memory"] < plan["memory"]["total"]


def test_lines_and_page_have_the_plan(plan):
    text = "\n".join(lines.lines(plan))
    assert "helps most    batch_size=16" in text
    assert "memory" in text and "a device, by the compiler" in text
    html = page.page(plan)
    assert html.count("<svg") == 2
    for word in ("What helps", "Collectives", "mesh.tensor=4 does not divide", "Meshes"):
        assert word in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_a_mesh_that_does_not_fit_is_followed_by_the_next(run, speeds, monkeypatch):
    tried = []

    def refuses(run, mesh, place):
        tried.append(dict(mesh.shape))
        raise DoesNotFit(2.0**40 if len(tried) == 1 else 2.0**41)

    monkeypatch.setattr(compiled, "compile_step", refuses)
    limited = dataclasses.replace(FAST, memory=2.0**30)
    monkeypatch.setitem(chips.CHIPS, "cpu", limited)
    options = Options(topology=CPU, any_mesh=True, most_meshes=2, trials=0)
    result = planner.plan(run.config, options)
    assert len(tried) == 2
    # the one that needs least
    assert result["mesh"] == tried[0]
    assert result["memory"]["total"] == 2**40
    assert not result["memory"]["fits"]
    assert [m["result"] for m in result["meshes"][:3]] == ["compiled, does not fit"] * 2 + [
        "not tried"
    ]
    assert "DOES NOT FIT in 1 GiB" in "\n".join(lines.lines(result))
    # activations are what does not fit, so what keeps fewer comes first
    assert result["knobs"][0]["option"] in ("accumulate", "compute.remat")
    assert not any(k["helps"] for k in result["knobs"])


def test_what_the_compiler_refuses_is_told_and_others_are_tried(run, speeds, monkeypatch):
    tried = []
    own = arithmetic.memory(run, sharding.make_mesh(run.config.mesh, CPU.devices()))

    def compile_step(run, mesh, place):
        tried.append(dict(mesh.shape))
        if len(tried) % 2:
            raise compiled.Refused("the compiler refuses the step: no such kernel")
        return compiled.Compiled(own, None, 0.0)

    monkeypatch.setattr(compiled, "compile_step", compile_step)
    options = Options(topology=CPU, any_mesh=True, most_meshes=3, trials=1)
    result = planner.plan(run.config, options)
    assert result["mesh"] == tried[1]
    results = [m["result"] for m in result["meshes"][:2]]
    assert results == ["the compiler refuses the step: no such kernel", "compiled, fits"]
    assert "no such kernel" in "\n".join(lines.lines(result))
    # the change that was tried third, and refused, is not recommended
    assert "compiled" not in {knob["source"] for knob in result["knobs"]}
    assert len(tried) == 3

    def refuses(run, mesh, place):
        raise compiled.Refused("the compiler refuses the step: no such kernel")

    monkeypatch.setattr(compiled, "compile_step", refuses)
    with pytest.raises(ValueError, match="no such kernel"):
        planner.plan(run.config, options)


def test_a_program_whose_text_cannot_be_read_has_collectives_on_paper(run, speeds, monkeypatch):
    class Unreadable:
        def as_text(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: operands")

    mesh = sharding.make_mesh(run.config.mesh, CPU.devices())
    assert compiled._collectives(Unreadable(), mesh, CPU) is None
    step = compiled.Compiled(arithmetic.memory(run, mesh), None, 0.0)
    monkeypatch.setattr(compiled, "compile_step", lambda *_: step)
    result = planner.plan(run.config, Options(topology=CPU, trials=0))
    assert result["collectives"] == []
    assert result["time"]["overlapped"] > 0 < result["time"]["exposed"]
    assert any("collectives are those on paper" in note for note in result["notes"])


def test_where_no_mesh_fits_on_paper_nothing_is_compiled(run, speeds, monkeypatch):
    monkeypatch.setitem(chips.CHIPS, "cpu", dataclasses.replace(FAST, memory=100.0))
    monkeypatch.setattr(compiled, "compile_step", None)
    with pytest.raises(ValueError, match="no mesh of cpu:8 fits: the least that any needs is"):
        planner.plan(run.config, Options(topology=CPU, any_mesh=True))


def test_without_a_data_sheet_meshes_are_compared_by_memory(run, monkeypatch):
    step = compiled.Compiled(arithmetic.memory(run, sharding.make_mesh(MeshConfig())), (), 0.0)
    monkeypatch.setattr(compiled, "compile_step", lambda *_: step)
    rows = planner.plan(run.config, Options(topology=CPU, any_mesh=True, trials=0))["meshes"]
    assert {row["seconds"] for row in rows} == {None}
    assert [row["result"] for row in rows[:3]] == [
        "compiled, fits",
        *["needs more memory on paper"] * 2,
    ]


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        # of one layer and of two, with 1 and 3 TFLOPs: six more are added, and what is missing of the FLOPs on paper
        ([(0.01, 1e12), (0.03, 3e12)], 0.01 + 7 * 0.02 + 85e12 / 100e12),
        # XLA counts operations that it does not know as a second less
        ([(-23.99, 1e12), (-37.98, 3e12)], None),
        ([(0.01, 1e12), (-0.97, 3e12)], None),
        # faster than twice the peak
        ([(0.004, 1e12), (0.03, 3e12)], None),
        ([(0.01, 1e12), (0.015, 3e12)], None),
    ],
)
def test_an_estimate_that_no_chip_could_reach_is_none(monkeypatch, costs, expected):
    place = topology.parse("v5e:1x1")
    monkeypatch.setitem(chips.PEAK_FLOPS, place.chip.kind, 100e12)
    one = types.SimpleNamespace(
        config=types.SimpleNamespace(
            model=types.SimpleNamespace(num_layers=8, num_decoder_layers=None), accumulate=1
        ),
        flops_per_step=100e12,
    )
    options = []
    monkeypatch.setattr(compiled, "_with_layers", lambda run, layers: layers)
    monkeypatch.setattr(compiled, "_lower", lambda run, mesh, place: run)
    monkeypatch.setattr(compiled, "_compile", lambda run, given: options.append(given) or run)
    monkeypatch.setattr(compiled, "_cost", lambda layers: costs[layers - 1])
    found = compiled.expected_seconds(one, None, place)
    assert found == (expected if expected is None else pytest.approx(expected))
    assert "xla_tpu_sliced_prefetch_max_slices" in options[0]


def test_what_the_compiler_refuses_is_one_line():
    class Refused:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: no such kernel\nat 0x12")

    with pytest.raises(ValueError, match=r"^the compiler refuses the step: .*: no such kernel$"):
        compiled._compile(Refused())


def test_what_no_mesh_would_change_is_refused_as_such(run):
    optimizer = dataclasses.replace(run.config.optimizer, warmup_steps=99)
    config = dataclasses.replace(run.config, steps=9, optimizer=optimizer)
    options = Options(topology=CPU, any_mesh=True)
    with pytest.raises(ValueError, match=r"^optimizer.warmup_steps=99 is more than the 9 steps"):
        planner.plan(config, options)
    # and what some mesh might change, by the meshes at both ends
    config = dataclasses.replace(run.config, batch_size=3)
    rows, heads = (
        "data=8: batch_size=3 is not a multiple",
        "tensor=8: mesh.tensor=8 does not divide",
    )
    with pytest.raises(ValueError, match=f"{rows} .*; {heads} heads=2"):
        planner.plan(config, options)


def test_times_of_small_models_have_digits():
    assert lines.milliseconds(2.3717e-5) == "0.0237 ms"
    assert lines.milliseconds(0.0123456) == "12.3 ms"
    assert lines.milliseconds(12.3) == "12,300.0 ms"


def test_traffic_on_paper(run):
    c = run.config
    run = run.change(compute=ComputeConfig(dtype="bfloat16"))
    both = {"data": 2, "fsdp": 4, "tensor": 1}
    # in two bytes instead of four: gradients all-reduced; parameters gathered twice, and gradients scattered
    assert arithmetic.traffic(run, both, 1000.0) == {
        "data": 2 * 500 * 1 / 2,
        "fsdp": 2 * 2000 * 3 / 4 + 2000 * 3 / 4,
    }
    # 128 tokens of width 16 in 2 layers, four times, in two bytes
    tensor = arithmetic.traffic(run, {"data": 1, "fsdp": 1, "tensor": 2}, 1000.0)
    assert tensor == {"tensor": 2 * (128 * 16 * 2 * 4 * 2) * 1 / 2}
    assert c.model.num_layers == 2


def test_an_axis_on_several_nodes_is_slow():
    two = topology.parse("h100:2x8")
    shape = {"data": 2, "fsdp": 8, "tensor": 1}
    assert arithmetic._crosses(shape, "data", two.per_node)
    assert not arithmetic._crosses(shape, "fsdp", two.per_node)
    assert arithmetic.speed(two, 2, True) == 50e9
    # in a torus an axis of 16 of 64 chips has two of three dimensions
    assert arithmetic.speed(topology.parse("v5p:4x4x4"), 16, False) == pytest.approx(400e9)


def test_axes_that_arithmetic_does_not_know_stay_as_they_are():
    assert tuple(f"--mesh.{name}" for name in arithmetic.KNOWN_AXES) == plan_command._CHOSEN
    shapes = list(meshes.shapes(MeshConfig(data=4), 4))
    assert len(shapes) == 6
    assert all(s.data * s.fsdp * s.tensor == 4 for s in shapes)


def test_the_command_prints_a_line_of_json_and_writes_a_page(tmp_path, capsys, plan, monkeypatch):
    monkeypatch.setattr(planner, "plan", lambda config, options, say: {**plan, "name": config.name})
    flags = ["--topology", "cpu:8", "--mesh", "auto", "--batch-size", "8"]
    out = tmp_path / "plan.html"
    assert cli.main(["plan", *flags, "--json", f"--out={out}"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) == json.loads((tmp_path / "plan.json").read_text())
    assert json.loads(line)["name"] == "python_docs"
    assert out.read_text().startswith("<!doctype html>")
    assert cli.main(["plan", *flags]) == 0
    assert capsys.readouterr().out.startswith("python_docs on cpu:8")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--topology is missing"),
        (["--topology"], "--topology needs a value"),
        (["--topology", "v5p"], "needs a shape"),
        (["--topology", "cpu:8", "--mesh", "best"], "--mesh best: say auto, or give the axes"),
        (["--topology", "cpu:8", "--trials", "many"], "--trials many: not a whole number"),
        (["--topology", "cpu:8", "--efficiency", "2"], "must be from 0.01 to 1"),
        (["--topology", "cpu:8", "--out", "plan.json"], "name a file that ends in .html"),
        (["--topology", "cpu:8", "--steps", "0"], "steps=0 must be at least 1"),
        (
            ["--topology", "cpu:8", "--mesh", "auto", "--mesh.fsdp=4"],
            "--mesh.fsdp has no effect with --mesh auto, which chooses --mesh.data, --mesh.fsdp, --mesh.tensor",
        ),
        (["--topology", "cpu:8", "--batch-size", "12"], "batch_size=12 is not a multiple of the 8"),
    ],
)
def test_wrong_arguments_are_named(capsys, argv, message):
    assert cli.main(["plan", *argv]) == 2
    assert message in capsys.readouterr().err


def test_a_plan_of_fine_tuning_reads_its_data(tmp_path):
    config = FinetuneConfig(init=str(tmp_path / "none"), task=tiny(tmp_path).task)
    with pytest.raises(ValueError, match="none"):
        subject.of(config)
