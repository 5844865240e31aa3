"""`jaxlm explain`: why a model answers as it does, as a page and as JSON."""

from __future__ import annotations

import pathlib
from typing import Literal, get_args

from jaxlm.cli.arguments import ModelDir, Step, check_not_read, check_numbers, check_page, parse

Name = Literal[
    "integrated_gradients",
    "input_x_gradient",
    "saliency",
    "occlusion",
    "attention",
    "rollout",
    "value_norms",
    "attention_x_gradient",
    "value_zeroing",
    "lens",
    "patching",
    "latents",
    "all",
]


def run(argv: list[str]) -> None:
    """Explains the text that the arguments give."""
    parse(explain, argv, "jaxlm explain")


def explain(
    model: ModelDir,
    /,
    text: str,
    method: tuple[Name, ...] = ("integrated_gradients",),
    pair: str | None = None,
    target: str | None = None,
    against: str | None = None,
    corrupt: str | None = None,
    place: str = "residual_before",
    out: pathlib.Path = pathlib.Path("explanation.html"),
    task: str | None = None,
    step: Step = None,
    integration_steps: int = 32,
    seed: int = 0,
) -> None:
    """Writes one HTML page that needs no network, and a JSON file beside it: what each token of a text does for the
    model's answer, how far to trust that, attention heads, answers by layer.

    Args:
        model: folder of a run or of a Hugging Face model, or a .gguf file: a classifier, a language model, a text VAE.
        text: the text, prompt or source; of a masked language model with its mask, such as [MASK], in it.
        method: one or several. lens: the answer after each layer; patching: which activations carry the difference to
            --corrupt; latents: of a text VAE; all: all that the model can have (patching if --corrupt is given).
        pair: the second text, for a classifier of pairs.
        target: the answer to explain, a class or a token; of an encoder-decoder the target. Default: the model's own.
        against: explain why the answer is not this one; default: any other.
        corrupt: a text with as many tokens and another answer, for patching.
        place: whose activations are patched, such as residual_before, attention_out, mlp_out.
        out: page to write; the JSON file has the same name with .json.
        task: name of the task, for a model that fits several.
        step: of a run's checkpoint, or best (by the validation metric); default: the newest.
        integration_steps: points of integrated gradients.
        seed: of the random weights that the attributions are compared with.
    """
    check_page(out)
    check_not_read(out.with_suffix(".json"), model)
    check_numbers(1, integration_steps=integration_steps)
    check_numbers(0, seed=seed)
    from jaxlm import explain as wing

    if "latents" in method:
        if len(method) > 1:
            raise ValueError("--method latents is for text VAEs, and the others are not")
        given = dict(pair=pair, target=target, against=against, corrupt=corrupt, task=task)
        if none := [f"--{name}" for name, value in given.items() if value is not None]:
            raise ValueError(f"{', '.join(none)}: no effect with --method latents: leave it out")
        from jaxlm.run import latents

        found = wing.latents(latents.load(model, step=step), text, seed=seed)
    else:
        subject = wing.load(model, task=task, step=step)
        chosen = dict.fromkeys(method)
        if "all" in chosen:
            chosen = dict.fromkeys(get_args(Name)[:-3])
        if corrupt is not None:
            chosen["patching"] = None
        found = wing.explain(
            subject,
            text,
            tuple(chosen),
            pair=pair,
            target=target,
            against=against,
            corrupt=corrupt,
            place=place,
            steps=integration_steps,
            seed=seed,
        )
    found.save(out)
    print(found)
    print(f"the page is in {out}, the numbers in {out.with_suffix('.json')}")
