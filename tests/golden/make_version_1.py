"""Makes tests/golden/version_1: small run folders and shards as jaxlm wrote them before configs had version 2.

Run it with the code of commit e2f430b (26 November 2026), in a checkout of that commit:

    python PATH/TO/make_version_1.py OUT_DIR

Each run has 8 steps; of it are kept the checkpoint of step 4 and the metrics of all steps (`expected.jsonl`), so that
a test can go on from step 4 and compare.
"""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

MODEL = "--model.dim 16 --model.num-layers 3 --model.num-heads 2 --model.max-len 16"
RUN = "--steps 8 --batch-size 4 --log-every 1 --checkpoint.every 4 --evaluation.every 8 --data.seq-len 16"
RUN += " --optimizer.warmup-steps 2 --data.validation-fraction 0.2 --compute.dtype float32 --mesh.data 1"
TEXT = "--data.train corpus.txt --data.text-unit line --data.tokenizer.kind char --data.tokenizer.vocab-size 64"
LABELLED = "--init masked --data.train labelled.jsonl"
RUNS = {
    "masked": f"train {{configs}}/objectives/masked_lm.py {RUN} {MODEL} {TEXT} --optimizer.name muon",
    "unclipped": f"train {{configs}}/objectives/causal_lm.py {RUN} {MODEL} {TEXT} --optimizer.clip-norm 0",
    "decay": f"finetune {RUN} {LABELLED} --layer-decay 0.5",
    "last_blocks": f"finetune {RUN} {LABELLED} --train-only last_blocks --last-blocks 2",
    "head": f"finetune {RUN} {LABELLED} --train-only head",
}


def main(out: pathlib.Path) -> None:
    """Writes the folder."""
    configs = pathlib.Path("configs").absolute()
    out.mkdir(parents=True)
    os.chdir(out)
    random.seed(0)
    names = ["ann", "bob", "cat", "dan", "eve"]
    lines = [
        f"{random.choice(names)} met {random.choice(names)} on day {i % 30}." for i in range(60)
    ]
    pathlib.Path("corpus.txt").write_text("\n".join(lines) + "\n")
    rows = [
        {"text": f"a {['good', 'bad'][i % 2]} film {i}", "label": ["pos", "neg"][i % 2]}
        for i in range(30)
    ]
    pathlib.Path("labelled.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for name, words in RUNS.items():
        command = [*words.format(configs=configs).split(), "--run-dir", name]
        subprocess.run([sys.executable, "-m", "jaxlm", *command], check=True)
        folder = pathlib.Path(name)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        (folder / "expected.jsonl").write_text("\n".join(lines) + "\n")
        kept = [line for line in lines if json.loads(line)["step"] <= 4]
        (folder / "metrics.jsonl").write_text("\n".join(kept) + "\n")
        if name != "masked":  # the others start from its last checkpoint
            shutil.rmtree(folder / "checkpoints/8")
        for path in [
            *folder.glob("events*"),
            folder / "curves.png",
            folder / "summary.json",
            folder / ".lock",
        ]:
            path.unlink()
    shutil.copytree("masked", "masked_begun", ignore=shutil.ignore_patterns("8"))
    shutil.rmtree("masked/checkpoints/4")
    tokenize = ["tokenize", "corpus.txt", "shards", "--data.text-unit", "line"]
    tokenize += [
        "--data.tokenizer.path",
        "masked/tokenizer.json",
        "--data.validation-fraction",
        "0.2",
    ]
    subprocess.run([sys.executable, "-m", "jaxlm", *tokenize], check=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).absolute())
