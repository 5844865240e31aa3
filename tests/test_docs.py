"""The README and the guides: examples and programs run, commands parse, files and links exist, both READMEs agree."""

import ast
import contextlib
import importlib
import importlib.util
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
import types
from unittest import mock

import jax
import pytest
from runs import small_runs

import jaxlm
from jaxlm import params
from jaxlm.cli import arguments
from jaxlm.cli import main as cli
from jaxlm.config import FinetuneConfig, TrainConfig
from jaxlm.hf import supported
from jaxlm.run import quickstart
from jaxlm.training import phases

REPOSITORY = pathlib.Path(__file__).parents[1]
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for folder in ("", "docs/", "examples/")
    for path in sorted(REPOSITORY.glob(f"{folder}*.md"))
}
README, CHINESE = PAGES["README.md"], PAGES["README.zh-CN.md"]
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


def fenced(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands of a page: indented lines without their comments, those joined by && one by one."""
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    lines = re.findall(r"^    (\S.*)$", prose.replace("\\\n", " "), re.MULTILINE)
    plain = [re.sub(r"\s{2,}#.*$", "", line) for line in lines]
    starts = ("python ", "jaxlm ", "pip ", "pytest", "ruff ", ".ci/")
    return [part for line in plain if line.startswith(starts) for part in line.split(" && ")]


COMMANDS = sorted(
    {" ".join(command.split()) for page in PAGES.values() for command in commands(page)}
)
OURS = [c for c in COMMANDS if re.match(r"python (train|finetune)\.py|jaxlm ", c)]
OTHERS = [c for c in COMMANDS if c not in OURS]


def run_program(code: str, name: str = "program") -> dict:
    """The names that a program defines."""
    module = types.ModuleType(name)
    with mock.patch.dict(sys.modules, {name: module}), mock.patch.dict(params.PARAMS):
        exec(compile(code, name, "exec"), module.__dict__)
    return vars(module)


def test_the_example_of_the_building_blocks_runs():
    [example] = fenced(README)
    assert len(example.splitlines()) <= 25
    names = run_program(example)
    assert names["logits"].shape == (2, 33, 256)
    assert abs(float(names["value"]) - 5.545) < 0.1  # about ln 256: it has learnt nothing yet
    assert jax.tree.structure(names["gradients"]) == jax.tree.structure(names["params"])


def test_both_readmes_have_the_same_code_commands_tables_and_links():
    assert commands(README) == commands(CHINESE)
    code = lambda page: [re.sub(r"\s*#.*", "", block) for block in fenced(page)]
    assert code(README) == code(CHINESE)
    headings = lambda page: re.findall(r"^(#+) ", page, re.MULTILINE)
    assert headings(README) == headings(CHINESE)
    rows = lambda page: [line.count("|") for line in page.splitlines() if line.startswith("|")]
    assert rows(README) == rows(CHINESE)
    links = lambda page: sorted(re.findall(r"\]\(([^)]*)\)", page))
    other = lambda names: [n for n in names if not n.startswith("README")]
    assert other(links(README)) == other(links(CHINESE))
    quoted = lambda page: sorted(re.findall(r"`([^`\n]+)`", page))
    assert quoted(README) == quoted(CHINESE)


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_table_of_extras_is_that_of_the_package(page):
    table = PAGES[page].split("| extra |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` ", table, re.MULTILINE) == list(EXTRAS)


def test_the_example_of_the_guide_to_data_runs():
    [example] = fenced(PAGES["docs/data.md"])
    names = run_program(example)
    assert (names["inputs"].lengths + names["targets"].lengths - [12, 8]).tolist() == [2, 2]


# ---- docs/extending.md

TASK, SOURCE, HEAD, LOOP, PHASES = fenced(PAGES["docs/extending.md"])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with small_runs():
        yield tmp_path


@pytest.mark.slow
def test_a_task_of_ones_own_is_trained_evaluated_and_predicts(folder):
    names = run_program(TASK)
    assert names["summary"]["steps"] == 60
    metrics, prediction = names["result"].metrics, names["prediction"]
    # a constant answer is 1.2 stars off, and "great" means five
    assert metrics["mean_absolute_error"] < 1
    assert names["summary"]["evaluation"]["mean_absolute_error"] == pytest.approx(
        metrics["mean_absolute_error"], rel=1e-3
    )
    assert prediction["id"] == "new.jsonl:1"
    assert prediction["stars"] > 3.5


@pytest.mark.slow
def test_a_data_source_of_ones_own_is_trained_on_and_depends_on_indices_alone(folder):
    names = run_program(SOURCE)
    # 13 characters at random
    assert names["summary"]["evaluation"]["loss"] < 2.2
    rows = names["Sums"](
        jaxlm.data.tokenizer.load(folder / "runs/sums/tokenizer.json"),
        names["SumsConfig"](),
        "train",
    )
    both, one = rows.rows([3, 5], [0, 1]), rows.rows([5], [1])
    assert (both["tokens"][1:] == one["tokens"]).all()
    assert (both["tokens"] != rows.rows([3, 5], [1, 0])["tokens"]).any()


def test_a_head_of_ones_own_learns(folder):
    names = run_program(HEAD)
    assert names["summary"]["evaluation"]["accuracy"] == 1
    assert "pool_query" not in params.PARAMS  # the program's own entry


def test_a_training_loop_of_ones_own_learns():
    names = run_program(LOOP)
    assert names["history"][-1] < 0.3 < 2.5 < names["history"][0]
    assert not re.search(r"jaxlm\.(training|tasks|run)|Trainer", LOOP)


def test_the_config_with_phases_freezes_and_trains_what_the_guide_says():
    config = run_program(PHASES)["get_config"]()
    model = jaxlm.Classifier(
        jaxlm.EncoderConfig(vocab_size=32, dim=16, num_layers=2, num_heads=2), 2
    )
    abstract = jax.eval_shape(lambda: jaxlm.init_params(model, jax.random.key(0)))
    first, second = phases.make_phases(config, (), abstract)
    assert (first.first, first.last, second.first, second.last) == (1, 100, 101, 500)
    assert list(first.trained) == ["head"]
    assert set(second.trained) == {"head", "blocks"}
    assert second.trained["head"].continues
    assert second.trained["blocks"].optimizer.name == "muon"
    assert second.trained["head"].optimizer.learning_rate == pytest.approx(1.5e-3)


# ---- commands, files and links


def test_commands_are_found():
    assert len(OURS) >= 20
    assert len(OTHERS) >= 10
    assert "pytest" in COMMANDS
    assert any(c.startswith("jaxlm predict") for c in OURS)


@pytest.mark.parametrize("command", OURS)
def test_every_command_of_ours_parses(command, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(command)
    name, argv = (
        (pathlib.Path(words[1]).stem, words[2:]) if words[0] == "python" else (words[1], words[2:])
    )
    assert name in cli.COMMANDS
    if "--help" in argv:
        return  # tests/cli runs these
    if name in ("train", "finetune"):
        kind, default = {
            "train": (TrainConfig, quickstart.pretraining),
            "finetune": (FinetuneConfig, quickstart.finetuning),
        }[name]
        assert isinstance(arguments.read_config(argv, kind, default, name), kind)
        return
    called = []

    def only_parse(what, argv, prog, **options):
        """What parse does, without calling the command."""
        page = io.StringIO()
        with contextlib.redirect_stdout(page), pytest.raises(SystemExit):
            original(what, ["--help"], prog, **options)
        for word in argv:
            if word.startswith("--"):
                assert word in page.getvalue(), f"{word} is no option of {prog}"
        called.append(prog)

    original = arguments.parse
    module = importlib.import_module(f"jaxlm.cli.{name}")
    if name == "data":
        assert argv[0] == "inspect"
        rest = argv[1:]
        for own in ("--out", "--examples"):
            if own in rest:
                index = rest.index(own)
                rest = rest[:index] + rest[index + 2 :]
        assert arguments.read_config(rest, TrainConfig, quickstart.pretraining, name)
        return
    if name == "plan":
        own, _, rest = module.split(argv)
        assert own["--topology"]
        assert isinstance(module.config_of(rest), TrainConfig | FinetuneConfig)
        return
    monkeypatch.setattr(module, "parse", only_parse)
    module.run(argv)
    assert called


@pytest.mark.parametrize("command", OTHERS)
def test_every_other_command_names_what_is_there(command):
    words = shlex.split(command)
    if words[0] == "pip":
        for extra in re.findall(r"\[(\w+)\]", command):
            assert extra in EXTRAS
    for word in words[1:]:
        if word.endswith(".py") or word.startswith("tests/"):
            assert (REPOSITORY / word).exists(), word
    if words[0] == "python":
        script = (REPOSITORY / words[1]).read_text()
        for word in words[2:]:
            if word.startswith("--"):
                option = word.removeprefix("--")
                assert word in script or f"{option.replace('-', '_')}:" in script, word


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "benchmarks").glob("*.py")), ids=lambda path: path.stem
)
def test_what_a_benchmark_takes_from_jaxlm_exists(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxlm":
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                if importlib.util.find_spec(node.module).submodule_search_locations is not None:
                    with contextlib.suppress(ModuleNotFoundError):
                        modules[name.asname or name.name] = importlib.import_module(whole)
                        continue
                assert hasattr(importlib.import_module(node.module), name.name), whole
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            assert module is None or hasattr(module, node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_of_a_page_exist(page):
    text = PAGES[page]
    for name in re.findall(r"`((?:jaxlm|tests|docs|configs|benchmarks|examples)/[\w/.]*)`", text):
        assert (REPOSITORY / name).exists(), name
    folder = (REPOSITORY / page).parent
    for link in re.findall(r"\]\(([^)]*)\)", text):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = folder / name if name else REPOSITORY / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in anchors, link


def test_the_picture_of_the_architecture_is_true():
    text = PAGES["docs/architecture.md"]
    picture = re.findall(r"```\n(.*?)```", text, re.DOTALL)[0]
    package = REPOSITORY / "jaxlm"
    drawn = set(re.findall(r"(\w+)/", picture))
    folders = {path.parent.name for path in package.rglob("__init__.py")} - {"jaxlm"}
    assert drawn == folders
    assert {"params.py", "sharding.py"} <= set(re.findall(r"\w+\.py", picture))
    # what the two lives name, relative to jaxlm/
    lives = text[text.index("## The life of one batch") : text.index("## Where to find")]
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", lives):
        assert (package / name).exists(), name
    # left of column 80 there are names of files and folders, right of it descriptions
    files = {path.stem for path in package.rglob("*.py")}
    names = {name for line in picture.splitlines() for name in re.findall(r"\w{2,}", line[:80])}
    assert len(names) > 40
    assert names - {"py"} <= files | folders


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs").rglob("*.py")), ids=lambda p: p.stem
)
def test_every_config_file_makes_a_config_and_tells_its_command(path):
    from jaxlm.config import files

    config = files.load_python(path)
    assert isinstance(config, (TrainConfig, FinetuneConfig))
    assert config.name
    text = path.read_text()
    assert "Command:" in text
    assert "Hardware:" in text


@pytest.mark.slow
def test_the_first_commands_run_end_to_end(tmp_path):
    one = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"

    def run(script, *flags):
        done = subprocess.run(
            [
                sys.executable,
                REPOSITORY / script,
                "--steps",
                "2",
                "--optimizer.warmup-steps",
                "1",
                *flags,
            ],
            cwd=tmp_path,
            env=os.environ | {"XLA_FLAGS": one},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # a small model, because the tests leave out the optimisations that make a larger one fast
    small = ("--model.num-layers", "1", "--model.dim", "32", "--data.max-documents", "60")
    out = run("train.py", "--evaluation.batches", "1", *small)
    assert "outputs are in" in out
    assert "--- sample at step 2\n" in out
    for name in ("summary.json", "curves.png"):
        assert (tmp_path / "runs/python_docs" / name).stat().st_size > 0, name
    out = run("finetune.py", "--evaluation.batches", "2")
    assert "accuracy" in out
    summary = json.loads((tmp_path / "runs/python_packages/summary.json").read_text())
    assert summary["steps"] == 2


def test_the_table_of_models_is_that_of_the_code():
    assert supported.markdown() in (REPOSITORY / "docs/hugging_face.md").read_text()
