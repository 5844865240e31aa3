"""The model card, README.md of an exported model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from jaxlm.hf.choice import Choice
from jaxlm.hf.kinds import KINDS

# what loads an exported model
Library = Literal["transformers", "sentence-transformers"]


def model_card(
    choice: Choice,
    name: str,
    facts: Mapping[str, Any],
    scores: Mapping[str, Any],
    *,
    library: Library = "transformers",
) -> str:
    """Text of README.md: architecture, training, validation metrics, and code that loads the model.

    Args:
        choice: the transformers class of the model.
        name: name of the model.
        facts: facts about the training, such as steps and data.
        scores: metric -> value on the validation data of the run.
        library: what loads the model.
    """
    pipeline = KINDS[choice.family.kind(choice.architecture)].pipeline
    if library == "sentence-transformers":
        pipeline = "sentence-similarity"
    results = [
        {"type": metric, "value": value, "name": metric}
        for metric, value in scores.items()
        if isinstance(value, (int, float))
    ]
    task = {"type": pipeline}
    head: dict[str, Any] = {"library_name": library, "pipeline_tag": pipeline}
    head["tags"] = ["jaxlm"]
    if results:
        data = {"name": "validation data of the run", "type": "validation"}
        head["model-index"] = [
            {"name": name, "results": [{"task": task, "dataset": data, "metrics": results}]}
        ]
    # JSON is valid YAML and escapes any name
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""]
    lines += [f"# {name}", "", f"A {choice.architecture}, trained with jaxlm.", ""]
    lines += [f"- {fact}: {value}" for fact, value in facts.items()]
    if scores:
        lines += ["", "On the validation data of the run:", "", "| metric | value |", "|---|---|"]
        lines += [
            f"| {k} | {v:.4f} |" if isinstance(v, float) else f"| {k} | {v} |"
            for k, v in scores.items()
        ]
    return "\n".join([*lines, "", "```python", *_loading(library, choice.architecture), "```", ""])


def _loading(library: Library, architecture: str) -> list[str]:
    """Lines of code that load the model."""
    if library == "sentence-transformers":
        return [
            "from sentence_transformers import SentenceTransformer",
            "",
            "model = SentenceTransformer(FOLDER)",
            'vectors = model.encode(["a text", "another one"])',
        ]
    return [
        f"from transformers import AutoTokenizer, {architecture}",
        "",
        f"model = {architecture}.from_pretrained(FOLDER)",
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
    ]
