"""The model card, README.md of an exported model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jaxlm.hf.choice import Choice
from jaxlm.hf.kinds import KINDS


def model_card(
    choice: Choice, name: str, facts: Mapping[str, Any], scores: Mapping[str, Any]
) -> str:
    """Text of README.md: architecture, training, validation metrics, and code that loads the model.

    Args:
        choice: the transformers class of the model.
        name: name of the model.
        facts: facts about the training, such as steps and data.
        scores: metric -> value on the validation data of the run.
    """
    kind = choice.family.kind(choice.architecture)
    results = [
        {"type": metric, "value": value, "name": metric}
        for metric, value in scores.items()
        if isinstance(value, (int, float))
    ]
    task = {"type": KINDS[kind].pipeline}
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": KINDS[kind].pipeline}
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
    loads = [
        "",
        "```python",
        f"from transformers import AutoTokenizer, {choice.architecture}",
        "",
        f"model = {choice.architecture}.from_pretrained(FOLDER)",
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
        "```",
        "",
    ]
    return "\n".join(lines + loads)
