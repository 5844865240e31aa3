"""Writes data sets in the columns that the tasks read: TREC, MRPC, CLINC150, and a tagging set made from SQuAD.

    python benchmarks/task_data.py DATA OUT

DATA has the folders trec, mrpc, clinc150 and squad_subset. OUT gets

- trec_train.jsonl, trec_test.jsonl: `text` and `label`, one of six kinds of question (Li & Roth 2002); a few lines
  are not UTF-8 and are read as Latin-1;
- mrpc_train.tsv, mrpc_test.tsv: as they are, with the columns Quality, #1 String and #2 String;
- clinc_train.jsonl, clinc_val.jsonl, clinc_test.jsonl: `text` and `label`, one of 150 intents; clinc_oos_val.jsonl and
  clinc_oos_test.jsonl: questions of none of them (Larson et al. 2019);
- answer_tags_train.jsonl, answer_tags_dev.jsonl: `text` and `spans`, the sentences of SQuAD that have the answer to a
  question that begins with who, when, what year, where, how many or how much, with these answers as spans PERSON, TIME,
  PLACE and NUMBER. The annotation is incomplete (nobody asked about the other names of a sentence), so scores on it say
  how a tagger learns from such data and compare with nothing published.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

KINDS = {
    "PERSON": ("who", "whom", "whose"),
    "TIME": ("when", "what year", "in what year", "in which year", "which year"),
    "PLACE": ("where", "in what city", "in what country", "what country", "what city"),
    "NUMBER": ("how many", "how much", "what percentage"),
}


def write(path: pathlib.Path, rows: list[dict]) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{path}: {len(rows):,} rows")


def kind_of(question: str) -> str | None:
    """The type of the answer to a question, by its first words."""
    text = question.lower().strip()
    return next((k for k, begins in KINDS.items() if text.startswith(begins)), None)


def tagged(path: pathlib.Path) -> list[dict]:
    """The sentences of a SQuAD file that have an answer of a known type, with all such answers as spans."""
    rows = []
    for article in json.loads(path.read_text())["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            spans = set()
            for question in paragraph["qas"]:
                kind = kind_of(question["question"])
                if kind and question["answers"]:
                    # several people marked an answer: the shortest is the name without the words around it
                    best = min(question["answers"], key=lambda answer: len(answer["text"]))
                    start = best["answer_start"]
                    spans.add((start, start + len(best["text"]), kind))
            kept: list[tuple[int, int, str]] = []
            for span in sorted(spans, key=lambda span: (span[0] - span[1], span)):
                if all(span[1] <= other[0] or span[0] >= other[1] for other in kept):
                    kept.append(span)
            ends = [
                0,
                *(m.end() for m in re.finditer(r"(?<=[a-z)\"])[.?!]\s+(?=[A-Z\"])", context)),
            ]
            for a, b in zip(ends, [*ends[1:], len(context)]):
                inside = [(s - a, e - a, k) for s, e, k in sorted(kept) if a <= s and e <= b]
                if inside:
                    spans_of = [{"start": s, "end": e, "label": k} for s, e, k in inside]
                    rows.append({"text": context[a:b], "spans": spans_of})
    return rows


def main(data: pathlib.Path, out: pathlib.Path) -> None:
    """Writes all of them."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("train", "test"):
        lines = (data / f"trec/TREC.{name}.all").read_bytes().decode("latin-1").splitlines()
        pairs = [line.split(" ", 1) for line in lines if line.strip()]
        write(out / f"trec_{name}.jsonl", [{"text": text, "label": k} for k, text in pairs])
        text = (data / f"mrpc/msr_paraphrase_{name}.txt").read_text(encoding="utf-8-sig")
        (out / f"mrpc_{name}.tsv").write_text(text)
    clinc = json.loads((data / "clinc150/data_full.json").read_text())
    for name in ("train", "val", "test", "oos_val", "oos_test"):
        write(out / f"clinc_{name}.jsonl", [{"text": t, "label": k} for t, k in clinc[name]])
    squad = data / "squad_subset"
    write(out / "answer_tags_train.jsonl", tagged(squad / "train_v1style_14articles.json"))
    write(out / "answer_tags_dev.jsonl", tagged(squad / "dev_v1style_16articles.json"))


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:3]))
