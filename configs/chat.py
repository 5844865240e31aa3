"""A chat model: a decoder learns to answer as the assistant of your conversations does.

Command:   python finetune.py configs/chat.py --init MODEL --data.train train.jsonl --data.validation dev.jsonl
           MODEL is a run, a Hugging Face folder or a .gguf file; a line of the files is
           {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
           rows as in Alpaca: add --task.instruction-column instruction
           adapters instead of all parameters: add --lora.rank 16 --optimizer.learning-rate 2e-4
           then talk to it: jaxlm chat runs/chat
Hardware:  2 CPU cores for models of up to 150 million parameters, one GPU of 80 GB for 1 to 8 billion (with adapters)
Time:      SmolLM2-135M with adapters on 2 CPU cores: docs/results.md
"""

from jaxlm import (
    ChatConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
)


def get_config() -> FinetuneConfig:
    """Packed rows of 512 tokens, 16 per step; give the number of steps that two or three epochs need."""
    return FinetuneConfig(
        init="runs/python_docs",
        task=ChatConfig(),
        data=DataConfig(train=("train.jsonl",), seq_len=512),
        optimizer=OptimizerConfig(
            learning_rate=2e-5,
            schedule="linear",
            warmup_steps=20,
            b2=0.999,
            weight_decay=0.0,
            final_fraction=0.0,
        ),
        evaluation=EvaluationConfig(every=100),
        checkpoint=CheckpointConfig(every=500),
        steps=300,
        batch_size=16,
    )
