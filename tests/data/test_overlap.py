import dataclasses

from jaxlm.config import DataConfig, TokenizerConfig
from jaxlm.data import shard_writer, sources, tokenizer
from jaxlm.data.overlap import RUN, Overlap

WORDS = [f"word{i}" for i in range(40)]


def test_thirteen_shared_words_are_an_overlap_and_twelve_are_not():
    seen = Overlap.of([" ".join(WORDS[:30])])
    assert "before, " + " ".join(WORDS[5 : 5 + RUN]) + " after" in seen
    assert "before " + " ".join(WORDS[5 : 4 + RUN]) + " after" not in seen
    assert " - ".join(word.upper() for word in WORDS[10:30]) in seen
    assert " ".join(reversed(WORDS[:30])) not in seen
    assert "" not in seen
    assert not Overlap.of([" ".join(WORDS[:12]), ""]).runs


def test_ideographs_are_words():
    text = "床前明月光疑是地上霜舉頭望明月低頭思故鄉"
    seen = Overlap.of([text])
    assert "詩曰：" + text[:13] in seen
    assert "詩曰：" + text[:12] not in seen


def test_training_skips_evaluation_texts(tmp_path):
    held = " ".join(WORDS[:20])
    texts = [f"number {i} " + " ".join(WORDS[i:]) for i in range(12)] + [
        f"quoting {held} at length"
    ]
    (tmp_path / "train.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "test.txt").write_text(f"short\n{held}\n")
    data = DataConfig(
        train=(str(tmp_path / "train.txt"),), text_unit="line", validation_fraction=0.0
    )
    clean = dataclasses.replace(data, decontaminate=(str(tmp_path / "test.txt"),))
    kept = sources.load_texts(clean, "train")
    # the first eight share WORDS[7:20] or more
    assert kept.texts == texts[8:12]
    assert "9 skipped: shares 13 consecutive words" in str(kept.counts)
    tok = tokenizer.train(texts, TokenizerConfig(kind="char", vocab_size=64))
    manifest = shard_writer.write(tmp_path / "out", clean, tok, command="", processes=0)
    assert manifest["splits"]["train"]["documents"] == 4
    assert list(manifest["left_out"].values()) == [9]
