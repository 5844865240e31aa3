"""The arms of benchmarks/refined_training.py and its table; training goes on where it stopped."""

import json
import pathlib
import sys

import pytest

zstandard = pytest.importorskip("zstandard")

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import refined_training  # noqa: E402
from refined_training import Training  # noqa: E402


def fabricate(folder, stages=("read", "urls", "extraction", "quality", "near_duplicates")):
    """A refined folder with a document dropped by each stage, and two that were kept."""
    folder.mkdir()
    funnel = {"stages": [{"name": name} for name in stages], "kept_dropped": True}
    (folder / "funnel.json").write_text(json.dumps(funnel))
    text = "{0} of the old town is open on every day of the week. " * 20
    dropped = [
        {"stage": name, "rule": "some", "text": text.format(name.capitalize())} for name in stages
    ]
    dropped.append({"stage": "quality", "rule": "edited", "text": "It was kept."})
    kept = [{"text": text.format(name)} for name in ("Museum", "Market")]
    for name, records in {"documents": kept, "dropped/01": dropped}.items():
        path = folder / name / "00000.jsonl.zst"
        path.parent.mkdir(parents=True)
        data = "".join(json.dumps(record) + "\n" for record in records)
        path.write_bytes(zstandard.ZstdCompressor().compress(data.encode()))
    return folder


def first_words(folder, arm):
    return [record["text"].split()[0] for record in refined_training.documents(folder, arm)]


def test_arms(tmp_path):
    pages = fabricate(tmp_path / "pages")
    assert first_words(pages, "deduplicated") == ["Museum", "Market"]
    assert first_words(pages, "filtered") == ["Museum", "Market", "Near_duplicates"]
    # what was dropped before extraction is markup
    assert first_words(pages, "raw") == ["Museum", "Market", "Quality", "Near_duplicates"]
    texts = fabricate(tmp_path / "texts", ("urls", "quality", "near_duplicates"))
    assert first_words(texts, "raw")[2:] == ["Urls", "Quality", "Near_duplicates"]


def test_table():
    run = lambda value: {"bits_per_byte": value, "documents": 5, "tokens": 1000, "epochs": 1.5}
    results = {
        "raw": [run(2.0), run(2.2)],
        "filtered": [run(1.9), run(2.1), run(1.0)],
        "deduplicated": [],
    }
    lines = refined_training.table(results, Training(), 7).split("\n")
    assert "614,400 tokens" in lines[0]
    assert lines[-2:] == [
        "| raw | 5 | 1,000 | 1.50 | 2 | 2.1000 ± 0.1414 |  |",
        # seed by seed: the third has no raw run
        "| filtered | 5 | 1,000 | 1.50 | 3 | 1.6667 ± 0.5859 | -0.1000 ± 0.0000 |",
    ]


@pytest.mark.slow
def test_runs_that_are_there_are_not_trained_again(tmp_path, capsys, monkeypatch):
    folder = fabricate(tmp_path / "refined")
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps({"text": "The church of the old town is open."}) + "\n")
    training = Training(
        steps=2, batch_size=8, seq_len=16, dim=16, num_layers=1, num_heads=2, vocab_size=280
    )
    arms = dict(out=tmp_path / "out", seeds=1, training=training)
    trained = []
    real = refined_training.pretrain
    monkeypatch.setattr(
        refined_training, "pretrain", lambda config: trained.append(config.name) or real(config)
    )
    refined_training.main(folder, held_out, arms=("raw",), **arms)
    refined_training.main(folder, held_out, **arms)
    assert trained == ["raw seed0", "filtered seed0", "deduplicated seed0"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert all(0 < runs[0]["bits_per_byte"] < 20 for runs in results.values())
    assert [runs[0]["documents"] for runs in results.values()] == [4, 3, 2]
    assert "| deduplicated | 2 |" in capsys.readouterr().out
    with pytest.raises(ValueError, match="has runs of other settings"):
        refined_training.main(folder, held_out, **arms | {"training": Training(steps=3)})
