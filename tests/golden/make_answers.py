"""Creates tests/golden/answers/expected.json: which tokens of chats transformers takes for the assistant's.

The templates there mark answers by {% generation %}, which transformers needs for that and jaxlm ignores. Requires
transformers and jinja2; run it only after changing this file or a template, with the tokenizers of make_chat.py:

    python tests/golden/make_answers.py
"""

import json
import pathlib

import transformers
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
USER = {"role": "user", "content": "What is the weather in Paris?"}
ANSWERS = [
    {"role": "assistant", "content": content}
    for content in (" It is 21 degrees. ", "naïve café; 敏捷的棕色狐狸", "\n\nthe sum\n\n", "a")
]
CHATS = [[USER, answer] for answer in ANSWERS] + [
    [x for answer in ANSWERS for x in (USER, answer)],
    [USER, ANSWERS[0], USER, ANSWERS[1], USER],
]


def cases():
    roles = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    for name in ("bytes", "pieces"):
        backend = Tokenizer.from_file(str(HERE / "chat" / f"{name}.json"))
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
        for template in ("chatml", "inst"):
            source = (HERE / "answers" / f"{template}.jinja").read_text()
            for messages in CHATS:
                out = theirs.apply_chat_template(
                    messages,
                    chat_template=source,
                    return_dict=True,
                    return_assistant_tokens_mask=True,
                )
                yield dict(
                    tokenizer=name,
                    template=template,
                    messages=messages,
                    ids=out["input_ids"],
                    mask=out["assistant_masks"],
                )


if __name__ == "__main__":
    text = ",\n".join(json.dumps(x, ensure_ascii=False) for x in cases())
    (HERE / "answers" / "expected.json").write_text(f"[\n{text}\n]\n")
