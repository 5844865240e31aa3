"""`jaxlm generate`: continues prompts, or writes the targets of sources."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import tyro

from jaxlm.cli import lines
from jaxlm.cli.arguments import Step, check_file, check_numbers, parse, read_text
from jaxlm.cli.generation import Dtype, ModelPath, Sampling
from jaxlm.config import MeshConfig, json_text


def run(argv: list[str]) -> None:
    """Writes with the model that the arguments name."""
    parse(generate, argv, "jaxlm generate")


def generate(
    model: ModelPath,
    /,
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    prompts: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
    suffix: str | None = None,
    n: int = 1,
    slots: int = 16,
    beams: int = 1,
    length_penalty: float = 1.0,
    draft: str | None = None,
    lookahead: int = 4,
    step: Step = None,
    dtype: Dtype = None,
    sampling: Sampling = Sampling(),
    mesh: MeshConfig = MeshConfig(),
) -> None:
    """Writes the continuation of each prompt; with an encoder-decoder, the target of each source.

    A single prompt is written as it comes. With --out, or for several prompts, there is a JSON object a line, in the
    order of the prompts: {"prompt": ..., "text": ..., "tokens": ..., "reason": "stop" or "length"}. The same command
    continues a file that is there already; only its last line is made again, to see that it is the same command.

    Args:
        model: folder of a run or of a Hugging Face model, or a .gguf file.
        prompt: text to continue; may be given several times.
        prompts: file with a prompt a line: a JSON object with a "prompt", or plain text.
        out: file for the results; default: standard output.
        suffix: write what stands between the prompt and this text, with a model that was trained to fill in the middle;
            for one prompt.
        n: texts of each prompt; they differ in the seed.
        slots: texts that are written at the same time.
        beams: write the most probable text that a beam search with so many beams finds; of the options of sampling only
            --sampling.max-new-tokens counts.
        length_penalty: of beam search: scores are divided by the length to this power.
        draft: a smaller model with the same tokenizer that proposes tokens which the model only checks, or "prompt":
            they are looked up in the text so far; for one prompt.
        lookahead: tokens that the draft proposes at a time.
        step: of a run's checkpoint, or best (by the validation metric); default: the newest.
        dtype: of the weights while writing; bfloat16 halves what each token reads; default: as the model has them.
        sampling: how to write.
        mesh: shape of the device mesh; if nothing is given, one device.
    """
    texts = [*prompt, *(_read_prompts(prompts) if prompts else [])]
    if not texts:
        raise ValueError("no prompt: give --prompt TEXT or --prompts FILE")
    check_numbers(1, n=n, slots=slots, beams=beams, lookahead=lookahead)
    if not math.isfinite(length_penalty):
        raise ValueError(f"--length-penalty {length_penalty}: must be a finite number")
    if beams > 1 and (n > 1 or draft):
        raise ValueError("--beams writes one text of each prompt, without --n and --draft")
    if suffix is not None and (out or len(texts) > 1 or n > 1 or beams > 1 or draft):
        raise ValueError("--suffix is for one --prompt, without --out, --n, --beams and --draft")
    if draft and (out or len(texts) * n > 1):
        raise ValueError("--draft is for one prompt, without --out and --n")
    sampling.check()
    check_file(out)
    jobs = [(text, sampling.seed + i) for text in texts for i in range(n)]
    done, last = _read_done(out, [text for text, _ in jobs]) if out else (0, None)
    if done:
        print(f"{out}: {done:,} of {len(jobs):,} are there already", file=sys.stderr)
    from jaxlm.run import language_model, load

    loaded = load.load(model, step=step, mesh=None if mesh == MeshConfig() else mesh, dtype=dtype)
    settings = loaded.settings(**sampling.fields())
    if suffix is not None:
        print(loaded.fill(texts[0], suffix, **sampling.fields()))
        return
    if out is None and len(jobs) == 1 and beams == 1:
        proposing = _draft(draft, loaded)
        given = sampling.fields()
        for piece in loaded.stream(texts[0], draft=proposing, lookahead=lookahead, **given):
            print(piece, end="", flush=True)
        print()
        return
    if beams > 1:
        length = sampling.max_new_tokens or 64
        texts = [text for text, _ in jobs[max(0, done - 1) :]]
        found = _search(loaded, texts, beams, length_penalty, length)
        if out is None and len(jobs) == 1:
            print(next(found)["text"])
        else:
            _write(out, jobs, done, last, found)
        return
    requests = []
    first = max(0, done - 1)
    for i, (text, seed) in enumerate(jobs[first:], first):
        try:
            requests.append(loaded.request(text, dataclasses.replace(settings, seed=seed)))
        except ValueError as e:
            raise ValueError(f"prompt {i // n + 1}: {e}") from None
    try:
        results = language_model.results(loaded, requests, slots=slots)
        _write(out, jobs, done, last, lines.in_order(results))
    except language_model.Unusable as e:
        raise ValueError(f"prompt {(first + e.index) // n + 1}: {e}") from None


def _write(
    out: pathlib.Path | None,
    jobs: list[tuple[str, int]],
    done: int,
    last: dict[str, Any] | None,
    results: Iterator[dict],
) -> None:
    """A line for each result, as it comes; the first result is that of the `last` of `done` lines, if any."""
    first = max(0, done - 1)
    made = ({"prompt": text, **result} for (text, _), result in zip(jobs[first:], results))
    if last is not None and next(made) != last:
        raise ValueError(
            f"{out}: its last line was written with another model or other settings; remove the file or name another "
            "one"
        )
    shown = lines.with_progress(made, "texts", done=done, total=len(jobs))
    lines.write(out, shown, done=done)


def _search(
    model: Any, prompts: list[str], beams: int, length_penalty: float, max_new_tokens: int
) -> Iterator[dict[str, Any]]:
    """The best text of each prompt, several prompts at a time."""
    for first in range(0, len(prompts), 16):
        given = dict(beams=beams, length_penalty=length_penalty, max_new_tokens=max_new_tokens)
        for texts in model.beam_search(prompts[first : first + 16], **given):
            text, score = texts[0]
            yield {"text": text, "score": score}


def _draft(name: str | None, model: Any) -> Any:
    """The draft that is asked for.

    Raises:
        ValueError: it has another tokenizer.
    """
    if name is None:
        return None
    from jaxlm.generation.speculative import LookUp
    from jaxlm.run import load

    if name == "prompt":
        return LookUp()
    small = load.load(name)
    if small.tokenizer.vocab != model.tokenizer.vocab:
        raise ValueError(f"--draft {name}: has another tokenizer than {model.name}")
    return small.draft()


def _read_prompts(path: pathlib.Path) -> list[str]:
    # only a line feed ends a line: texts may hold other separators
    lines = read_text(path, "utf-8-sig").replace("\r\n", "\n").split("\n")
    texts = []
    if path.suffix not in (".jsonl", ".json"):
        texts, lines = [line for line in lines if line.strip()], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json_text.DECODER.decode(line)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"{path}: line {number}: not JSON: {json_text.fault(e)}") from None
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
            raise ValueError(f'{path}: line {number}: no object with a text "prompt"')
        try:
            row["prompt"].encode()
        except UnicodeEncodeError:
            raise ValueError(f"{path}: line {number}: the prompt has half a character") from None
        texts.append(row["prompt"])
    if not texts:
        raise ValueError(f"{path}: no prompts")
    return texts


def _read_done(path: pathlib.Path, prompts: list[str]) -> tuple[int, dict[str, Any] | None]:
    """How many of the results a file has, whole lines only, and the last of them.

    Raises:
        ValueError: it has results of other prompts.
    """
    done, line = lines.whole(path, '{"prompt": '), None
    for number, (line, prompt) in enumerate(zip(lines.read(path, done), prompts), 1):
        if line.get("prompt") != prompt:
            raise ValueError(
                f"{path}: line {number} is no result of this prompt; remove the file or name another one"
            )
    if done > len(prompts):
        raise ValueError(
            f"{path}: has results of more prompts; remove the file or name another one"
        )
    return done, line
