"""`jaxlm vae`: what each action prints, and its errors in one line."""

import functools
import io
import json
import re

import pytest
import vae_runs

from jaxlm.cli import main as cli
from jaxlm.cli import vae as vae_command
from jaxlm.run import latents

# whole runs
pytestmark = pytest.mark.slow

A, B, C = "ann met bob", "the house today", "eve left cat"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = vae_runs.train_vae(tmp_path_factory.mktemp("vae"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "load", functools.cache(latents.load))
        yield folder


@pytest.fixture(scope="module")
def vae(run_dir):
    return latents.load(run_dir, step=None)


@pytest.fixture
def run(run_dir, capsys):
    def run(action, *argv):
        code = cli.main(["vae", action, str(run_dir), *map(str, argv)])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


@pytest.fixture
def rows(run):
    return lambda *argv: [json.loads(line) for line in run(*argv, "--json").splitlines()]


@pytest.fixture
def refused(capsys):
    def refused(*argv):
        code = cli.main(["vae", *map(str, argv)])
        out, err = capsys.readouterr()
        assert code == 2
        assert out == ""
        [line] = err.splitlines()
        assert line.startswith("error: ")
        return line

    return refused


def test_samples(run, rows, vae):
    texts = vae.sample(3, temperature=0.8, seed=5)
    argv = ("sample", "--n", 3, "--temperature", 0.8, "--seed", 5)
    assert [row["text"] for row in rows(*argv)] == texts
    assert run(*argv).splitlines() == texts


def test_reconstructions(run, rows, vae):
    written = vae.reconstruct([A, B])
    expected = [{"text": a, "reconstruction": b} for a, b in zip([A, B], written)]
    assert rows("reconstruct", A, B) == expected
    assert run("reconstruct", A).splitlines() == [A, f"    {written[0]}"]


def test_texts_come_from_standard_input_or_sources(rows, vae, tmp_path, monkeypatch):
    expected = rows("reconstruct", A, B)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{A}\n\n {B}\n"))
    assert rows("reconstruct") == expected
    (tmp_path / "texts.txt").write_text(f"{A}\n{B}\n")
    assert rows("reconstruct", "--data", tmp_path / "texts.txt") == expected


def test_interpolation(run, rows, vae):
    found = rows("interpolate", A, B, "--steps", 3)
    assert [row["fraction"] for row in found] == [0, 0.5, 1]
    assert [row["text"] for row in found] == vae.interpolate(A, B, steps=3)
    assert re.match(r"0\.00  \w", run("interpolate", A, B))


def test_traversal(run, rows, vae):
    shown = run("traverse", A, "--dim", 1, "--values", 0.02, 0.25).splitlines()
    assert [line.split("  ")[0] for line in shown] == ["dim 1 = +0.02", "dim 1 = +0.25"]
    found = rows("traverse", A, "--dim", 1, "--values", -2.5, 0, 2.5)
    assert [(row["dim"], row["value"]) for row in found] == [(1, -2.5), (1, 0), (1, 2.5)]
    assert [row["text"] for row in found] == vae.traverse(A, 1, [-2.5, 0, 2.5])
    assert {row["dim"] for row in rows("traverse", A)} == {vae.informative_dim(A)}


def test_neighbours(run, rows, tmp_path, capsys):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([A, B, C, "ann " * 40]) + "\n")
    [first, second] = rows("neighbours", B, "--data", path, "--k", 2)
    assert first == {"text": B, "similarity": pytest.approx(1)}
    assert second["text"] in (A, C)
    assert run("neighbours", B, "--data", path, "--k", 1) == f"1.000  {B}\n"
    assert len(rows("neighbours", A)) == 5  # among the validation data


def test_analogy(run, vae):
    assert run("analogy", A, A, C) == run("reconstruct", C).splitlines()[1].strip() + "\n"
    assert run("analogy", A, B, C) == vae.analogy(A, B, C).strip() + "\n"


def test_a_map_is_written_beside_the_run(rows, run_dir, tmp_path):
    [row] = rows("map")
    assert row["page"] == str(run_dir / "latent_map.html")
    page = (run_dir / "latent_map.html").read_text(encoding="utf-8")
    assert page.count("<circle ") == row["texts"] > 5
    assert len(row["variance"]) == 2
    assert "Latent space of tiny_vae, step 6" in page


def test_a_map_has_the_labels_of_a_column(run, tmp_path):
    lines = [f'{{"sentence": "ann met {w}", "kind": "{w[0]}"}}' for w in vae_runs.WORDS[:6]]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines) + "\n")
    columns = ("--text-column", "sentence", "--label-column", "kind")
    source = ("--data", tmp_path / "texts.jsonl", "--out", tmp_path / "map.html")
    assert "2 of 6 texts in " in run("map", *source, *columns, "--limit", 2)
    assert "2 of 6 texts" in (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "6 texts in " in run("map", *source, *columns)
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert 'data-label="e" data-text="ann met eve"' in page
    assert 'aria-pressed="true">e (1)</button>' in page


def test_texts_that_do_not_fit_are_reported(run_dir, tmp_path, capsys):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([A, B, "ann " * 40]) + "\n")
    assert cli.main(["vae", "neighbours", str(run_dir), A, "--data", str(path)]) == 0
    assert capsys.readouterr().err == "left out 1 texts that do not have 1 to 14 tokens\n"


def test_rows_without_a_text_are_told(run_dir, tmp_path, capsys):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in (A, "", B)))
    assert cli.main(["vae", "neighbours", str(run_dir), A, "--data", str(path)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err == f"3 rows read; 1 skipped: empty text (first at {path}:2)\n"


def test_unknown_words_and_missing_neighbours_are_told(run_dir, tmp_path, capsys):
    path = tmp_path / "texts.txt"
    path.write_text(f"{A}\n{B}\n")

    def told(action, *argv):
        assert cli.main(["vae", action, str(run_dir), *map(str, argv)]) == 0
        return capsys.readouterr().err

    line = "not in the vocabulary, so read as unknown (3): zebra, kayak\n"
    assert told("reconstruct", "ann met zebra", "zebra saw kayak") == line
    assert told("reconstruct", A, "ann <unk> bob") == ""
    assert "(1): zebra" in told("interpolate", A, "zebra", "--steps", 2)
    assert "(1): zebra" in told("analogy", A, B, "zebra")
    assert "(1): zebra" in told("traverse", "zebra", "--dim", 1)
    assert told("neighbours", A, "--data", path, "--k", 99) == "--k 99: there are only 2 texts\n"


def test_a_blank_text_is_shown_as_empty(capsys):
    vae_command._print([{"text": " ", "dim": 1}], False, "{dim}  {text}")
    vae_command._print([{"text": ""}], True, "{text}")
    assert capsys.readouterr().out == '1  (empty)\n{"text": ""}\n'


def test_errors_are_one_line(run_dir, refused, tmp_path, monkeypatch):
    assert "usage: jaxlm vae ACTION RUN_DIR" in refused()
    assert "no action 'draw'" in refused("draw", run_dir)
    assert "no such run folder" in refused("sample", tmp_path / "none")
    assert "text 1 ('') has no tokens" in refused("reconstruct", run_dir, "")
    assert "has 40 tokens" in refused("analogy", run_dir, A, "ann " * 40, C)
    assert "dim=9" in refused("traverse", run_dir, A, "--dim", 9)
    assert "not a finite number" in refused(
        "traverse", run_dir, A, "--dim", 1, "--values", 0, "nan"
    )
    assert "not a finite number" in refused("traverse", run_dir, A, "--dim", 1, "--values", "1e39")
    assert "--temperature nan: must be" in refused("sample", run_dir, "--temperature", "nan")
    assert "TEXT missing" in refused("neighbours", run_dir)
    assert "not both" in refused("reconstruct", run_dir, A, "--data", "x.txt")
    assert "x.txt" in refused("neighbours", run_dir, A, "--data", "x.txt")
    assert "at least two texts" in refused("map", run_dir, "--limit", 1)
    assert "does not exist" in refused("map", run_dir, "--out", tmp_path / "none/map.html")
    assert "--values is empty" in refused("traverse", run_dir, A, "--values")
    source = tmp_path / "texts.txt"
    source.write_text(f"{A}\n{B}\n")
    assert "is read, and would" in refused("map", run_dir, "--data", source, "--out", source)
    assert source.read_text() == f"{A}\n{B}\n"
    assert "no checkpoint of step 99" in refused("sample", run_dir, "--step", 99)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert "no texts on standard input" in refused("reconstruct", run_dir)


def test_a_run_that_is_no_vae_is_refused(refused, tmp_path):
    import runs

    from jaxlm.config import files

    files.save(runs.tiny(tmp_path), tmp_path / "config.json")
    assert "not of a text VAE" in refused("sample", tmp_path)


def test_other_commands_say_what_a_vae_is_used_with(run_dir, capsys):
    for argv, message in (
        (
            ["generate", str(run_dir), "--prompt", A],
            "a text VAE, which continues no text: `jaxlm vae`",
        ),
        (
            ["predict", str(run_dir), "--data", "-", "--batch-size", "8"],
            "task text_vae makes no predictions",
        ),
    ):
        assert cli.main(argv) == 2
        assert message in capsys.readouterr().err


def test_evaluation_counts_texts(run_dir, tmp_path, capsys):
    path = tmp_path / "three.txt"
    path.write_text(f"{A}\n{B}\n{C}\n")
    options = ["--data", str(path), "--bootstrap", "0", "--batch-size", "8"]
    assert cli.main(["evaluate", str(run_dir), *options]) == 0
    assert ", 3 examples" in capsys.readouterr().out


def test_help(capsys):
    from jaxlm.cli.vae import ACTIONS

    assert cli.main(["vae", "--help"]) == 0
    page = capsys.readouterr().out
    for action in ACTIONS:
        assert f"\n  {action} " in page
        with pytest.raises(SystemExit) as ended:
            cli.main(["vae", action, "--help"])
        assert not ended.value.code
        assert "--json" in capsys.readouterr().out
