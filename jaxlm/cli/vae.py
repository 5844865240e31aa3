"""`jaxlm vae`: what a trained text VAE has learnt: reconstructions, samples, directions, neighbours, a map."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import tyro

from jaxlm.cli.arguments import RunDir, Step, beside, check_not_read, check_numbers, parse
from jaxlm.config.disk import write_text

Text = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TEXT")]
Texts = Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="TEXT")]
Json = Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(name="json")]


# number of neighbours
DEFAULT_K = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Writing:
    """How texts are written."""

    # of the tokens; 0: the most probable one each time
    temperature: float = 0.0
    # equal seeds give equal texts
    seed: int = 0
    # of the checkpoint; default: the newest
    step: Step = None
    # print a JSON object a line
    as_json: Json = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"--temperature {self.temperature}: must be a number from 0")
        check_numbers(0, seed=self.seed)

    @property
    def choice(self) -> dict[str, Any]:
        """The options of the decoder."""
        return {"temperature": self.temperature, "seed": self.seed}


# without a prefix: --temperature, not --writing.temperature
Options = Annotated[Writing, tyro.conf.arg(name="")]


def run(argv: list[str]) -> None:
    """Runs the action that the first argument names."""
    if not argv:
        raise ValueError(f"usage: jaxlm vae ACTION RUN_DIR ...; actions: {', '.join(ACTIONS)}")
    if argv[0] in ("-h", "--help"):
        print(_usage())
        return
    if argv[0] not in ACTIONS:
        raise ValueError(f"jaxlm vae has no action {argv[0]!r}; there are {', '.join(ACTIONS)}")
    parse(ACTIONS[argv[0]], argv[1:], f"jaxlm vae {argv[0]}")


def sample(
    run_dir: RunDir,
    /,
    n: int = 8,
    writing: Options = Writing(),
) -> None:
    """Writes texts from the prior.

    Args:
        run_dir: folder of the run.
        n: number of texts.
        writing: how to write.
    """
    check_numbers(1, n=n)
    vae = _load(run_dir, writing.step)
    texts = vae.sample(n, **writing.choice)
    _print(({"text": text} for text in texts), writing.as_json, "{text}")


def reconstruct(
    run_dir: RunDir,
    texts: Texts = (),
    /,
    data: tuple[str, ...] = (),
    writing: Options = Writing(),
) -> None:
    """Writes each text again from its posterior mean; without texts, the lines of standard input.

    Args:
        run_dir: folder of the run.
        texts: the texts.
        data: sources to read texts from instead.
        writing: how to write.
    """
    if texts and data:
        raise ValueError("give texts or --data, not both")
    vae = _load(run_dir, writing.step)
    originals = _read(vae, data).texts if data else list(texts or _lines())
    _tell_unknown(vae, originals)
    written = vae.reconstruct(originals, **writing.choice)
    rows = ({"text": a, "reconstruction": b} for a, b in zip(originals, written))
    _print(rows, writing.as_json, "{text}\n    {reconstruction}")


def interpolate(
    run_dir: RunDir,
    a: Text,
    b: Text,
    /,
    steps: int = 8,
    writing: Options = Writing(),
) -> None:
    """Writes texts on the arc between two texts.

    Args:
        run_dir: folder of the run.
        a: the first text.
        b: the last text.
        steps: number of texts, both ends among them.
        writing: how to write.
    """
    check_numbers(2, steps=steps)
    vae = _load(run_dir, writing.step)
    _tell_unknown(vae, [a, b])
    texts = vae.interpolate(a, b, steps=steps, **writing.choice)
    rows = ({"fraction": i / (steps - 1), "text": text} for i, text in enumerate(texts))
    _print(rows, writing.as_json, "{fraction:.2f}  {text}")


def traverse(
    run_dir: RunDir,
    text: Text,
    /,
    dim: int | None = None,
    values: tuple[float, ...] = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0),
    writing: Options = Writing(),
) -> None:
    """Writes a text again and again with other values of one dim of its latent.

    Args:
        run_dir: folder of the run.
        text: the text.
        dim: of the latent, from 0; default: the one that says most about this text.
        values: of the dim.
        writing: how to write.
    """
    check_numbers(0, dim=dim)
    if not values:
        raise ValueError("--values is empty: name at least one number")
    vae = _load(run_dir, writing.step)
    _tell_unknown(vae, [text])
    dim = vae.informative_dim(text) if dim is None else dim
    texts = vae.traverse(text, dim, values, **writing.choice)
    rows = ({"dim": dim, "value": v, "text": text} for v, text in zip(values, texts))
    _print(rows, writing.as_json, "dim {dim} = {value:+g}  {text}")


def neighbours(
    run_dir: RunDir,
    text: Text,
    /,
    data: tuple[str, ...] = (),
    k: int = DEFAULT_K,
    text_column: str | None = None,
    step: Step = None,
    as_json: Json = False,
) -> None:
    """Finds the texts whose posterior means have the smallest angle to that of a text.

    Args:
        run_dir: folder of the run.
        text: the text.
        data: sources of the texts to search; default: the run's validation data.
        k: number of texts to find.
        text_column: column of the text; default: as in the run's own data.
        step: of the checkpoint, or best (by the validation metric); default: the newest.
        as_json: print a JSON object a line.
    """
    check_numbers(1, k=k)
    vae = _load(run_dir, step)
    _tell_unknown(vae, [text])
    texts = _read(vae, data, text_column=text_column).texts
    if k > max(len(texts), DEFAULT_K):
        print(f"--k {k}: there are only {len(texts):,} texts", file=sys.stderr)
    found = vae.neighbours(text, texts, k)
    _print((near._asdict() for near in found), as_json, "{similarity:.3f}  {text}")


def analogy(
    run_dir: RunDir,
    a: Text,
    b: Text,
    c: Text,
    /,
    writing: Options = Writing(),
) -> None:
    """Writes what is to the third text as the second is to the first.

    Args:
        run_dir: folder of the run.
        a: the first text.
        b: the second text.
        c: the third text.
        writing: how to write.
    """
    vae = _load(run_dir, writing.step)
    _tell_unknown(vae, [a, b, c])
    text = vae.analogy(a, b, c, **writing.choice)
    _print([{"text": text}], writing.as_json, "{text}")


def map_(
    run_dir: RunDir,
    /,
    data: tuple[str, ...] = (),
    out: pathlib.Path | None = None,
    label_column: str | None = None,
    text_column: str | None = None,
    limit: int = 2000,
    seed: int = 0,
    step: Step = None,
    as_json: Json = False,
) -> None:
    """Writes a page with a map of texts: the two main directions of their posterior means.

    Args:
        run_dir: folder of the run.
        data: sources of the texts; default: the run's validation data.
        out: HTML file to write; default: latent_map.html in the folder of the run.
        label_column: column of a class, to colour the texts by.
        text_column: column of the text; default: as in the run's own data.
        limit: show at most this many texts, chosen at random.
        seed: of that choice.
        step: of the checkpoint, or best (by the validation metric); default: the newest.
        as_json: print a JSON object a line.
    """
    from jaxlm.report import latent_map
    from jaxlm.run import latents

    check_numbers(0, seed=seed)
    out = beside(out, run_dir, "latent_map.html")
    check_not_read(out, *data)
    if limit < 2:
        raise ValueError(f"--limit {limit}: a map needs at least two texts")
    vae = _load(run_dir, step)
    read = _read(
        vae, data, text_column=text_column, label_column=label_column, limit=limit, seed=seed
    )
    texts = read.texts
    points, fractions = latents.project(vae.encode(texts).means)
    chosen = f" of {read.fitting:,}" if len(texts) < read.fitting else ""
    number = f"{len(texts):,}{chosen}"
    title = f"Latent space of {run_dir.resolve().name}, step {vae.run.step:,}: {number} texts"
    write_text(out, latent_map.page(title, texts, points, fractions, read.labels))
    row = {"page": str(out), "texts": len(texts), "variance": fractions.round(4).tolist()}
    _print([row], as_json, f"{number} texts in {{page}}")


ACTIONS: dict[str, Callable[..., None]] = {
    "sample": sample,
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "traverse": traverse,
    "neighbours": neighbours,
    "analogy": analogy,
    "map": map_,
}


def _usage() -> str:
    lines = ["usage: jaxlm vae ACTION RUN_DIR ...    (jaxlm vae ACTION --help tells more)", ""]
    for name, action in ACTIONS.items():
        lines.append(f"  {name:<12} {(action.__doc__ or '').splitlines()[0]}")
    return "\n".join(lines)


def _load(run_dir: pathlib.Path, step: Step) -> Any:
    from jaxlm.run import latents

    return latents.load(run_dir, step=step)


def _read(vae: Any, data: tuple[str, ...], **options: Any) -> Any:
    """Texts of sources, with lines about those that were skipped and those that do not fit."""
    from jaxlm.run import latents

    texts = latents.read_texts(vae, data, **options)
    if texts.counts.skipped:
        print(texts.counts, file=sys.stderr)
    if texts.too_long:
        print(
            f"left out {texts.too_long:,} texts that do not have 1 to {vae.longest} tokens",
            file=sys.stderr,
        )
    return texts


def _tell_unknown(vae: Any, texts: list[str]) -> None:
    """Prints a line about words that the vocabulary of the run does not have."""
    if words := vae.unknown(texts):
        different = list(dict.fromkeys(words))
        shown = ", ".join(different[:8]) + (", ..." if len(different) > 8 else "")
        print(
            f"not in the vocabulary, so read as unknown ({len(words):,}): {shown}", file=sys.stderr
        )


def _lines() -> list[str]:
    """The lines of standard input that are not blank."""
    if sys.stdin.isatty():
        raise ValueError("no texts: give some, or sources with --data, or lines on standard input")
    lines = [line.strip() for line in sys.stdin if line.strip()]
    if not lines:
        raise ValueError("no texts on standard input")
    return lines


def _print(rows: Iterable[dict[str, Any]], as_json: bool, line: str) -> None:
    """Prints each row as JSON, or as `line` says, where a blank text is written (empty)."""
    for row in rows:
        if as_json:
            print(json.dumps(row, ensure_ascii=False))
            continue
        shown = {
            name: "(empty)" if isinstance(x, str) and not x.strip() else x
            for name, x in row.items()
        }
        print(line.format(**shown).rstrip())
