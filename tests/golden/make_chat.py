"""Creates tests/golden/chat/: two small tokenizers, and transformers' ids for chats by each template there.

Requires transformers and jinja2; run it only after changing this file or a template:

    python tests/golden/make_chat.py
"""

import json
import pathlib

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent / "chat"
SPECIAL = [
    *("<pad>", "<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"),
    *("<|user|>", "<|assistant|>", "<|system|>"),
]
PLAIN = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
]
TEXT = [
    "You are a helpful assistant. What is the weather like in Paris today? It is 21 degrees.",
    "  def add(a, b):\n    return a + b\n\nThe user asked for the sum, the answer is 3.\n",
    'Größe, naïve café; 敏捷的棕色狐狸跳过了懒狗。 {"name": "weather", "arguments": {"city": 1}}',
] * 3
ASK = {"role": "user", "content": "What is the weather?"}
SYSTEM = {"role": "system", "content": "You are a helpful\nassistant.  "}
ANSWER = {"role": "assistant", "content": " It is 21 degrees. "}
CHATS = {
    "one": [ASK],
    "system": [SYSTEM, ASK],
    "turns": [
        ASK,
        ANSWER,
        {"role": "user", "content": "\n 敏捷 and  \n\n<b>café</b> <|im_ {{ messages }}"},
    ],
    "long": [SYSTEM, ASK, ANSWER, ASK, ANSWER, ASK],
    "ends with the answer": [ASK, ANSWER],
    "empty answer": [ASK, {"role": "assistant", "content": ""}, ASK],
    "thoughts": [
        ASK,
        {"role": "assistant", "content": "<think>\nthe sum\n</think>\n\nIt is 3."},
        ASK,
    ],
    "wrong order": [ASK, ASK],
    "answer first": [ANSWER, ASK],
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Größe <&>"}}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}
RESULT = {"role": "tool", "content": '{"degrees": 21}', "tool_call_id": "1"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Today's weather, in degrees <C>.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def byte_level():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    backend.train_from_iterator(TEXT, trainer)
    return backend


def metaspace():
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=220, show_progress=False, special_tokens=["<unk>"])
    backend.train_from_iterator(TEXT, trainer)
    return backend


def case(name, theirs, template, chat, messages, **more):
    result = dict(tokenizer=name, template=template, chat=chat, messages=messages, **more)
    source = (HERE / f"{template}.jinja").read_text()
    try:
        result["ids"] = theirs.apply_chat_template(
            messages, chat_template=source, tokenize=True, return_dict=False, **more
        )
    except Exception as e:
        result["error"] = str(e)
    return result


def cases(name, backend):
    backend.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in SPECIAL])
    backend.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False, rstrip=True)])
    backend.add_tokens([AddedToken(x, normalized=False) for x in PLAIN])
    backend.save(str(HERE / f"{name}.json"), pretty=False)
    roles = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
    for template in sorted(path.stem for path in HERE.glob("*.jinja")):
        for chat, messages in CHATS.items():
            asks = messages[-1]["role"] == "user"
            yield case(name, theirs, template, chat, messages, add_generation_prompt=asks)
    yes = dict(add_generation_prompt=True)
    chats = ([ASK], [SYSTEM, ASK, CALLED, RESULT, RESULT], [ASK, CALLED, RESULT, ANSWER, ASK])
    for messages in chats:
        yield case(name, theirs, "qwen", "tools", messages, tools=TOOLS, **yes)
    yield case(name, theirs, "qwen", "a variable", [ASK], enable_thinking=False, **yes)


def main():
    expected = [*cases("bytes", byte_level()), *cases("pieces", metaspace())]
    text = ",\n".join(json.dumps(x, ensure_ascii=False) for x in expected)
    (HERE / "expected.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
