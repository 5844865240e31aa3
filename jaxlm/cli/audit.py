"""`jaxlm audit`: what a model remembers of its training data, and how it treats groups."""

from __future__ import annotations

import json
import pathlib

from jaxlm.cli.arguments import (
    ModelDir,
    Step,
    beside,
    check_file,
    check_not_read,
    check_numbers,
    check_page,
    parse,
    read_text,
)
from jaxlm.config.disk import write_text


def run(argv: list[str]) -> None:
    """Audits the model that the arguments name, or makes canaries."""
    if argv and argv[0] == "canaries":
        parse(canaries, argv[1:], "jaxlm audit canaries")
    else:
        parse(audit, argv, "jaxlm audit")


def audit(
    model: ModelDir,
    /,
    train: str | None = None,
    heldout: str | None = None,
    reference: str | None = None,
    canaries: pathlib.Path | None = None,
    pairs: pathlib.Path | None = None,
    limit: int = 1000,
    prompt_lengths: tuple[int, ...] = (8, 16, 32),
    suffix: int = 16,
    candidates: int = 10_000,
    bootstrap: int = 1000,
    seed: int = 0,
    step: Step = None,
    out: pathlib.Path | None = None,
) -> None:
    """Writes what a model remembers to one HTML file that needs no network, and to a JSON file beside it: membership
    inference, exposure of canaries, verbatim continuation, and differences between groups. See docs/privacy.md.

    Args:
        model: folder of a run or of a Hugging Face model.
        train: source that the model was trained on.
        heldout: source of the same kind that it was not trained on.
        reference: run or model that was not trained on either, for likelihood ratios.
        canaries: file of canaries that were planted in the training data, from `jaxlm audit canaries`.
        pairs: minimal pairs: a table with columns first, second and perhaps about, or JSON with templates and groups.
        limit: texts of each source, at most.
        prompt_lengths: tokens of the prompts that a causal model continues.
        suffix: tokens that it is to write.
        candidates: texts among which a canary is ranked, at most; all that it could have been if these are fewer.
        bootstrap: samples that the intervals come from.
        seed: of the bootstrap and of the candidates.
        step: of a run's checkpoint, or best; default: the newest.
        out: HTML file to write; default: audit.html in the folder.
    """
    path = beside(out, model, "audit.html")
    check_page(path)
    check_not_read(path.with_suffix(".json"), model, canaries, pairs)
    from jaxlm.audit import audit, page

    check_numbers(1, bootstrap=bootstrap)
    check_numbers(0, seed=seed)
    options = audit.Options(
        train=train,
        heldout=heldout,
        reference=reference,
        canaries=canaries,
        pairs=pairs,
        limit=limit,
        prompt_lengths=prompt_lengths,
        suffix=suffix,
        candidates=candidates,
        samples=bootstrap,
        seed=seed,
        step=step,
    )
    result = audit.audit(model, options)
    write_text(path, page.page(result))
    data = path.with_suffix(".json")
    write_text(data, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print("\n".join(_lines(result)))
    print(f"the audit is in {path} and {data}")


def canaries(
    file: pathlib.Path,
    /,
    template: str = "the secret number of the day is {} {} {} {} {} {}",
    values: tuple[str, ...] = tuple("0123456789"),
    repeats: tuple[int, ...] = (1, 1, 1, 10, 10, 10),
    seed: int = 0,
    into: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Makes canaries, and plants them among the lines of a text.

    Args:
        file: JSON file to write.
        template: text of a canary, with {} for each random value.
        values: what a place may hold.
        repeats: how often each canary is planted; one number a canary.
        seed: of values and places.
        into: text file, a text a line, into which they are planted.
        out: where that text with the canaries is written.
    """
    if (into is None) != (out is None):
        raise ValueError(
            "--into and --out go together: a text, and where to write it with the canaries"
        )
    check_file(file)
    check_file(out)
    check_not_read(out, into, file)
    if out is not None and out.absolute() == file.absolute():
        raise ValueError(f"--out {out}: the canaries are written there: name another file")
    check_numbers(0, seed=seed)
    from jaxlm.audit import canaries

    if any(n < 1 for n in repeats):
        raise ValueError(f"--repeats {repeats}: must be at least 1")
    made = canaries.make(template, values, repeats, seed)
    text = [] if into is None else read_text(into).splitlines()
    made.save(file)
    print(f"{len(made.texts)} canaries, each one of {made.space:,} texts, are in {file}")
    if into is not None and out is not None:
        write_text(out, "\n".join(canaries.plant(text, made, seed)) + "\n")
        print(f"{into} with {sum(repeats)} lines more is in {out}")


def _lines(result: dict) -> list[str]:
    """The results in a few lines."""
    lines = []
    for name in ("loss", "likelihood_ratio"):
        if a := result.get("membership", {}).get(name):
            low, high = a["auc_interval"]
            lines.append(
                f"membership by {name.replace('_', ' ')}: AUC {a['auc']:.3f} [{low:.3f}, {high:.3f}], true positives "
                f"at 1% false ones {a['true_positives']:.3f}"
            )
    if shared := result.get("membership", {}).get("in_both"):
        lines.append(
            f"{shared:,} of the held-out texts are in the training data too: this hides what is remembered"
        )
    for row in result.get("continuation", {}).get("rows", []):
        lines.append(
            f"{row['texts']}, prompt of {row['prompt']} tokens: {row['verbatim']:.3f} continued verbatim"
        )
    for row in result.get("canaries", {}).get("rows", []):
        lines.append(f"canary planted {row['repeats']} times: exposure {row['exposure']:.2f} bits")
    for row in result.get("pairs", {}).get("rows", []):
        low, high = row["difference_interval"]
        lines.append(
            f"{row['about']}, {row['measure']}: difference {row['difference']:.4f} [{low:.4f}, {high:.4f}]"
        )
    return lines
