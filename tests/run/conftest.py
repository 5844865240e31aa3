"""Models that several files of tests predict and evaluate with."""

import dataclasses
import json

import numpy as np
import pytest
from runs import small_runs, tiny, write_corpus, write_labelled

from jaxlm.config import (
    DataConfig,
    EncoderConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
    TokenizerConfig,
)
from jaxlm.run.convert import convert
from jaxlm.run.finetune import finetune
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks import ClassificationConfig, MaskedLMConfig


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory):
    """run: a tiny classifier of single texts; hf: the same in the Hugging Face layout; new.jsonl: texts to predict."""
    root = tmp_path_factory.mktemp("predict")
    write_corpus(root)
    write_labelled(root)
    with small_runs():
        data = tiny(root).data
        words = TokenizerConfig(kind="wordpiece", vocab_size=90)
        texts = (str(root / "corpus.txt"), str(root / "labelled.jsonl"))
        data = dataclasses.replace(data, train=texts, tokenizer=words, seq_len=32)
        model = EncoderConfig(dim=16, num_layers=1, num_heads=2, max_len=32, dropout=0.0)
        pretrain(tiny(root, "base", model=model, task=MaskedLMConfig(), data=data, steps=30))
        finetune(
            FinetuneConfig(
                name="run",
                run_dir=str(root / "run"),
                init=str(root / "base"),
                task=ClassificationConfig(),
                data=DataConfig(
                    train=(str(root / "labelled.jsonl"),), validation_fraction=0.2, seq_len=32
                ),
                optimizer=OptimizerConfig(learning_rate=2e-2, warmup_steps=2, weight_decay=0.0),
                evaluation=EvaluationConfig(every=60),
                steps=60,
                batch_size=16,
            )
        )
    convert(root / "run", root / "hf")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(50):
        words = rng.choice(["good", "bad", "film", "tea", "a", "war", "about"], rng.integers(1, 25))
        # labels that the model does not know: answers are not read
        lines.append(json.dumps({"text": " ".join(words), "label": f"new {i}"}))
    (root / "new.jsonl").write_text("\n".join(lines) + "\n")
    return root
