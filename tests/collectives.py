"""Reads the collectives of a compiled program from its text."""

import math
import re

OPERATIONS = r"all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"


def collectives(text: str) -> list[tuple[str, int, bool]]:
    """Of each collective: its name, the numbers in the largest array of its line, whether it runs in a loop."""
    bodies: dict[str, list[str]] = {}
    for line in text.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if head:
            lines = bodies[head[1]] = []
        elif bodies:
            lines.append(line)
    called = {
        name: set(re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)", "\n".join(lines)))
        for name, lines in bodies.items()
    }
    looped, new = set(), set(re.findall(r"body=%?([\w.-]+)", text))
    while new:
        looped |= new
        new = set().union(*(called.get(name, set()) for name in new)) - looped
    found = []
    for name, lines in bodies.items():
        for line in lines:
            operation = re.search(rf" ({OPERATIONS})(?:-start)?\(", line)
            if operation:
                shapes = re.findall(r"\w\[([\d,]+)\]", line.partition(", metadata")[0])
                sizes = [math.prod(map(int, shape.split(","))) for shape in shapes]
                found.append((operation[1], max(sizes, default=1), name in looped))
    return found
