"""An engine without a model: the next token is a function of the tokens before it. For tests of the server itself."""

import hashlib
import threading
import time
from types import SimpleNamespace

import numpy as np

from jaxlm.config.data import TokenizerConfig
from jaxlm.data import tokenizer
from jaxlm.generation.requests import Token
from jaxlm.generation.settings import Settings
from jaxlm.serve.pieces import Pieces
from jaxlm.serve.served import Served

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "sphinx of black quartz, judge my vow",
    "你好, 世界!",
]
TEMPLATE = (
    "{% if tools %}<tool_call> {{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
# a conversation that says this is answered with the text after it, so that tests know the answer
SAY = "SAY:"
MAX_LEN = 4096


def make_tokenizer(*control):
    """A byte-level tokenizer of 300 tokens."""
    made = tokenizer.train(TEXTS * 3, TokenizerConfig(kind="byte_bpe", vocab_size=300))
    return made.with_tokens(control)


def distribution(ids, size):
    """Log-probabilities of the token after `ids` [V] float32: a function of the last eight of them."""
    seed = int.from_bytes(hashlib.sha256(str(list(ids[-8:])).encode()).digest()[:8], "big")
    logits = np.random.Generator(np.random.SFC64(seed)).standard_normal(size, np.float32) * 3
    return logits - np.float32(np.log(np.exp(logits).sum()))


def top_of(row, number):
    """The most probable tokens, as [(id, log-probability), ...]."""
    return [(int(i), float(row[i])) for i in np.argsort(-row, kind="stable")[:number]]


class Engine:
    """The interface of `jaxlm.generation.engine.Engine`."""

    # whether the constraint "slow" is compiled
    compiled = threading.Event()

    def __init__(self, tokenizer, slots=4, seconds=0.0, max_len=MAX_LEN):
        self.tokenizer, self.slots, self.seconds = tokenizer, slots, seconds
        self.max_len, self.max_prompt = max_len, max_len - 1
        self.rows, self.queue, self.count, self.broken = {}, {}, 0, False

    active = property(lambda self: len(self.rows))
    waiting = property(lambda self: len(self.queue))

    def warm_up(self, progress):
        progress(1, 3)
        time.sleep(self.seconds)

    def compile(self, constraint):
        if constraint.regex == "slow":
            self.compiled.wait(20)
        if constraint.regex == "(":
            raise ValueError("the constraint is wrong")

    def add(self, request):
        request.settings.check_ids(self.tokenizer.vocab_size)
        assert len(request.prompt) + request.settings.max_new_tokens <= self.max_len
        self.count += 1
        text = self.tokenizer.decode(request.prompt)
        said = text.rpartition(SAY)[2].partition("\nassistant:")[0] if SAY in text else None
        script = None if said is None else [*self.tokenizer.encode(said), self.tokenizer.eos_id]
        self.queue[self.count] = SimpleNamespace(
            ids=list(request.prompt), settings=request.settings, new=0, script=script
        )
        if "BREAK" in text:
            self.broken = True
        return self.count

    def cancel(self, number):
        self.rows.pop(number, None)
        self.queue.pop(number, None)

    def step(self):
        if self.broken:
            raise RuntimeError("out of memory")
        time.sleep(self.seconds)
        while self.queue and len(self.rows) < self.slots:
            number = next(iter(self.queue))
            self.rows[number] = self.queue.pop(number)
        return [self._advance(number, row) for number, row in list(self.rows.items())]

    def _advance(self, number, row):
        s = row.settings
        log_probs = distribution(row.ids, self.tokenizer.vocab_size)
        if row.script is not None:
            token = row.script[row.new]
        elif s.temperature == 0:
            token = int(log_probs.argmax())
        else:
            noise = np.random.default_rng([s.seed, row.new]).gumbel(size=len(log_probs))
            token = int((log_probs / s.temperature + noise).argmax())
        row.ids.append(token)
        row.new += 1
        reason = (
            "stop" if token in s.stop_ids else "length" if row.new == s.max_new_tokens else None
        )
        if "MISFIT" in self.tokenizer.decode(row.ids):
            reason = "error"
        if reason:
            del self.rows[number]
        wants = s.logprobs is not None
        return Token(
            number,
            token,
            float(log_probs[token]) if wants else None,
            top_of(log_probs, s.logprobs) if wants else None,
            reason,
        )

    def score(self, prompts, top=0):
        size = self.tokenizer.vocab_size
        scores = []
        for ids in prompts:
            rows = [distribution(ids[:i], size) for i in range(1, len(ids))]
            log_probs = [float(row[i]) for row, i in zip(rows, ids[1:])]
            scores.append(SimpleNamespace(log_probs=log_probs, top=[top_of(r, top) for r in rows]))
        return scores


def served(slots=4, seconds=0.0, control=("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")):
    """A chat model of this engine."""
    made = make_tokenizer(*control)
    return Served(
        name="stub",
        kind="decoder",
        tokenizer=made,
        engine=Engine(made, slots, seconds),
        embed=None,
        defaults=Settings(stop_ids=(made.eos_id,)),
        template=TEMPLATE,
        frame=made.encode,
        pieces=Pieces(made),
    )


def served_encoder():
    """An encoder whose vectors are counts of bytes."""
    made = make_tokenizer()

    def embed(texts):
        return np.stack([np.bincount(list(t.encode()), minlength=256) / 8 for t in texts])

    return Served(
        name="stub-encoder",
        kind="encoder",
        tokenizer=made,
        engine=None,
        embed=embed,
        defaults=Settings(),
        template=None,
        frame=made.encode,
        pieces=Pieces(made),
        dim=256,
    )
