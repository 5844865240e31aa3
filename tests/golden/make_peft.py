"""Creates tests/golden/peft/: adapters of peft for some of the models in tests/golden, and the outputs with them.

Requires torch, transformers and peft; run it only after changing this file:

    python tests/golden/make_peft.py

A folder has an adapter as peft saves it, and `expected.safetensors` with the logits for the inputs of its base. With a
folder of adapters as argument it prints what peft makes of them instead, for tests/hf/test_peft.py:

    python tests/golden/make_peft.py BASE ADAPTER OUT.safetensors
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import peft
import torch
import transformers as hf
from safetensors import safe_open
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
# adapter -> (base, settings)
ADAPTERS = {
    "llama": ("llama", dict(task_type="CAUSAL_LM", r=3, lora_alpha=5)),
    "llama_all": (
        "llama",
        dict(task_type="CAUSAL_LM", r=2, target_modules="all-linear", use_rslora=True),
    ),
    "llama_patterns": (
        "llama",
        dict(
            task_type="CAUSAL_LM",
            r=2,
            target_modules=["q_proj", "down_proj", "lm_head", "embed_tokens"],
            rank_pattern={"q_proj": 4},
            alpha_pattern={"layers.1.mlp.down_proj": 9},
        ),
    ),
    "gpt2": ("gpt2", dict(task_type="CAUSAL_LM", r=2, target_modules="all-linear")),
    "neox": ("gpt_neox", dict(task_type="CAUSAL_LM", r=2, target_modules=["query_key_value"])),
    "bert": (
        "bert_classifier",
        dict(
            task_type="SEQ_CLS",
            r=2,
            target_modules=["query", "attention.output.dense", "intermediate.dense"],
        ),
    ),
    "t5": ("t5", dict(task_type="SEQ_2_SEQ_LM", r=2, target_modules="all-linear")),
}


def inputs_of(base):
    with safe_open(HERE / base / "expected.safetensors", "numpy") as f:
        names = [k for k in f.keys() if k.endswith(("ids", "mask"))]  # noqa: SIM118
        return {name: torch.tensor(f.get_tensor(name)).long() for name in names}


def model_of(folder):
    [name] = json.loads((folder / "config.json").read_text())["architectures"]
    return getattr(hf, name).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )


def logits(model, base):
    with torch.no_grad():
        return model.eval()(**inputs_of(base)).logits.numpy()


def main():
    torch.manual_seed(0)
    for name, (base, settings) in ADAPTERS.items():
        folder = HERE / "peft" / name
        shutil.rmtree(folder, ignore_errors=True)
        model = peft.get_peft_model(model_of(HERE / base), peft.LoraConfig(**settings))
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = f"../../{base}"
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
        got = logits(model, base)
        print(name, np.abs(got - logits(model_of(HERE / base), base)).max())
        save_file({"logits": got}, folder / "expected.safetensors")


def read(base, adapter, out):
    base = pathlib.Path(base)
    model = peft.PeftModel.from_pretrained(model_of(base), adapter)
    got = logits(model, base.name)
    save_file({"logits": np.ascontiguousarray(got)}, out)


if __name__ == "__main__":
    read(*sys.argv[1:]) if len(sys.argv) > 1 else main()
