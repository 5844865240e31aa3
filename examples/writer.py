"""Continues stories and writes summaries: several drafts, best first.

    python examples/writer.py --model MODEL --prompt 'Once upon a time' --drafts 4
    python examples/writer.py --model SmolLM2-135M-Instruct.Q4_1.gguf --prompt 'a fox who learns to swim'
    python examples/writer.py --model runs/summarise --summarise article.txt

A decoder continues the prompt; a chat model is asked for a story about it, or for a summary; an encoder-decoder writes
the target of its source. Drafts are ranked by the mean log-probability that the model gives their tokens, or with
--judge by a classifier (the probability of --wanted) or a regression (its number).
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any, NamedTuple

import models

import jaxlm

STORY = "Write a short story about {}."
SUMMARY = "Summarise this text in two sentences:\n\n{}"


class Draft(NamedTuple):
    """A text with its rank."""

    text: str
    score: float
    # not cut off at the maximum length
    is_finished: bool


def request_of(model: Any, text: str, is_summary: bool, settings: Any) -> Any:
    """What the model is to write, by its kind."""
    if model.kind == "decoder" and model.chat_template is not None:
        content = (SUMMARY if is_summary else STORY).format(text)
        return model.chat_request([{"role": "user", "content": content}], settings)
    if model.kind == "decoder" and is_summary:
        raise ValueError(
            f"{model.name} only continues texts: --summarise needs a chat model or an encoder-decoder"
        )
    return model.request(text, settings)


def write(model: Any, text: str, is_summary: bool, count: int, **settings: Any) -> list[Draft]:
    """Drafts that differ in their seeds, best first; of those that are the same only one.

    Args:
        model: from `jaxlm.load`.
        text: prompt, subject or source.
        is_summary: whether a summary of the text is wanted.
        count: number of drafts.
        settings: of the first draft, such as temperature and seed; see `jaxlm.generation.settings`.
    """
    first = model.settings(**settings, logprobs=0)
    several = [
        request_of(model, text, is_summary, model.settings(**settings | {"seed": seed}, logprobs=0))
        for seed in range(first.seed, first.seed + count)
    ]
    drafts: dict[str, Draft] = {}
    for request, tokens in zip(several, model.engine(slots=count).run(several)):
        ids = [token.id for token in tokens if token.id not in first.stop_ids]
        # a continuation is read together with its prompt; an answer or a target begins anew
        is_continued = model.kind == "decoder" and model.chat_template is None
        written = model.tokenizer.decode([*request.prompt, *ids] if is_continued else ids).strip()
        values = [token.log_prob for token in tokens]
        draft = Draft(written, sum(values) / len(values), tokens[-1].reason == "stop")
        drafts.setdefault(written, draft)
    return sorted(drafts.values(), key=lambda draft: -draft.score)


def judge(model: Any, drafts: list[Draft], wanted: str | None) -> list[Draft]:
    """The drafts by what another model says about them, best first."""
    found = model.predict([draft.text for draft in drafts])
    if not {"probabilities", "value"} & set(found[0]):
        raise ValueError(
            "--judge ranks no texts: it needs a run of configs/classify.py or regress.py"
        )
    if wanted is None and "probabilities" in found[0]:
        raise ValueError(f"--wanted is needed: one of {', '.join(found[0]['probabilities'])}")
    if wanted is not None and wanted not in found[0].get("probabilities", ()):
        names = ", ".join(found[0].get("probabilities", ())) or "none, it predicts a number"
        raise ValueError(f"--wanted {wanted}: the classes are {names}")
    values = [p["value"] if wanted is None else p["probabilities"][wanted] for p in found]
    judged = [draft._replace(score=value) for draft, value in zip(drafts, values)]
    return sorted(judged, key=lambda draft: -draft.score)


def main(args: argparse.Namespace) -> None:
    """Writes about --prompt or --summarise, or about what is typed."""
    model = jaxlm.load(args.model)
    critic = jaxlm.load(args.judge) if args.judge else None
    chosen = {"max_new_tokens": args.length, "seed": args.seed}
    if model.kind == "encoder_decoder" or args.temperature is not None:
        # an encoder-decoder takes the most probable token otherwise: all drafts would be the same
        chosen["temperature"] = 0.7 if args.temperature is None else args.temperature

    def answer(text: str) -> None:
        drafts = write(model, text, args.summarise is not None, args.drafts, **chosen)
        if critic:
            drafts = judge(critic, drafts, args.wanted)
        for number, draft in enumerate(drafts, 1):
            cut = "" if draft.is_finished else ", cut off"
            print(f"--- draft {number} (score {draft.score:.3f}{cut})\n{draft.text}\n")

    if args.summarise is None:
        models.converse(args.prompt, answer)
        return
    source = sys.stdin if str(args.summarise) == "-" else args.summarise.open(encoding="utf-8")
    with source:
        text = source.read().strip()
    if not text:
        raise ValueError(f"{args.summarise}: there is no text")
    answer(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--model", required=True, help="a run, a folder in the Hugging Face layout, or a .gguf file"
    )
    add("--prompt", help="beginning or subject; default: prompts are typed, or read from stdin")
    add("--summarise", type=pathlib.Path, help="file with a text to summarise; - for stdin")
    add("--drafts", type=int, default=3, choices=range(1, 65), metavar="N", help="drafts (3)")
    add("--length", type=int, default=200, help="most tokens of a draft (200)")
    add("--temperature", type=float, help="default: the model's own; encoder-decoders 0.7")
    add("--seed", type=int, default=0, help="of the first draft (0)")
    add("--judge", help="a run of configs/classify.py or regress.py that ranks the drafts")
    add("--wanted", help="class of the judge that is wanted")
    models.run(main, parser)
