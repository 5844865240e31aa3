"""Any model that writes as a model of lm-evaluation-harness, without a server: `lm_eval.simple_evaluate(model=...)`.

Its numbers are those of the harness's own `hf` model on the same weights: the same control tokens, truncation, windows
and stop strings. Needs the package lm_eval, which is imported when it is used.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.data import chat_template
from jaxlm.generation import scoring
from jaxlm.generation.requests import Request
from jaxlm.generation.shared import Shared
from jaxlm.run.language_model import LanguageModel, write


def model_for_harness(
    model: LanguageModel, *, max_length: int | None = None, max_gen_toks: int = 256, slots: int = 16
) -> Any:
    """The model as an `lm_eval.api.model.LM`: loglikelihood, loglikelihood_rolling and generate_until.

    Args:
        model: from `jaxlm.load`; a decoder or an encoder-decoder.
        max_length: tokens of a context with its continuation; default: what the model reads.
        max_gen_toks: tokens of an answer, where a task does not say how many.
        slots: answers that are written at the same time.

    Raises:
        ValueError: lm_eval is not installed, or the model writes no text.
    """
    try:
        from lm_eval import utils
        from lm_eval.api.model import TemplateLM
        from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
    except ImportError as e:
        raise ValueError("lm-evaluation-harness is missing: pip install lm_eval") from e
    if model.kind not in ("decoder", "encoder_decoder"):
        raise ValueError(f"{model.name} writes no text, which the harness needs")
    tokenizer = model.tokenizer
    is_decoder = model.kind == "decoder"
    config = model.model.config
    longest = max_length or (config.max_len if is_decoder else config.decoder.max_len)
    end: Any = tokenizer.eos_id
    if end is None:
        raise ValueError(f"{model.name} has no end token, which the harness needs")
    first: int = end if tokenizer.bos_id is None else tokenizer.bos_id

    class JaxLM(TemplateLM):
        """A jaxlm model."""

        backend = "causal" if is_decoder else "seq2seq"
        eot_token_id = end
        prefix_token_id = first
        max_length = longest
        tokenizer_name = model.name
        batch_size = slots

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
        ) -> list[int]:
            """Ids of a text, in which control tokens may be spelled out."""
            ids = tokenizer.encode_with_control(string)
            if add_special_tokens is False:
                return ids
            if add_special_tokens is None and ids[: len(model.before)] == [*model.before]:
                return [*ids, *model.after]
            return [*model.before, *ids, *model.after]

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
        ) -> list[tuple[float, bool]]:
            if not is_decoder:
                return _seq2seq(model, requests, longest)
            texts = [(context + target)[-(longest + 1) :] for _, context, target in requests]
            inputs, following = [x[:-1] for x in texts], [x[1:] for x in texts]
            scores = scoring.follow(model.model, model.params, inputs, following, rows=8)
            results = []
            for (_, _, target), (log_probs, best) in zip(requests, scores):
                count = len(target)
                results.append((float(log_probs[-count:].sum()), bool(best[-count:].all())))
            return results

        def loglikelihood_rolling(
            self, requests: list[Any], disable_tqdm: bool = False
        ) -> list[float]:
            """Log-likelihood of whole texts, in windows that do not overlap."""
            windows, owners = [], []
            for index, request in enumerate(requests):
                [text] = request.args
                rolling = utils.get_rolling_token_windows(
                    token_list=self.tok_encode(text),
                    prefix_token=first,
                    max_seq_len=longest,
                    context_len=1,
                )
                for context, target in map(utils.make_disjoint_window, rolling):
                    windows.append((None, list(context), list(target)))
                    owners.append(index)
            totals = np.zeros(len(requests))
            for index, (log_prob, _) in zip(owners, self._loglikelihood_tokens(windows)):
                totals[index] += log_prob
            return totals.tolist()

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            """Answers up to a stop string."""
            eos = tokenizer.decode([end], skip_special=False)
            jobs = []
            for request in requests:
                context, given = request.args
                options = normalize_gen_kwargs(given, max_gen_toks)
                stop = handle_stop_sequences(options.pop("until", None), eos=eos)
                count = options.pop("max_gen_toks")
                room = longest - count if is_decoder else longest
                if room < 1:
                    raise ValueError(f"max_gen_toks={count} leaves no room in {longest} tokens")
                sampling = {n: options[n] for n in ("top_p", "top_k") if options.get(n)}
                if not options.get("do_sample"):
                    sampling = {"temperature": 0.0}
                elif "temperature" in options:
                    sampling["temperature"] = options["temperature"]
                settings = model.settings(
                    max_new_tokens=count, stop=tuple(s for s in stop if s), **sampling
                )
                ids = self.tok_encode(context)[-room:]
                jobs.append(
                    Request(ids, settings) if is_decoder else Request(model.start, settings, ids)
                )
            texts = [""] * len(jobs)
            for piece in write(Shared(model.engine(slots=slots)), model, jobs, is_continued=False):
                texts[piece.request] += piece.text
            return texts

        def apply_chat_template(
            self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
        ) -> str:
            """A conversation as text, by the model's template."""
            ids = chat_template.render(
                model.chat_template,
                tokenizer,
                chat_history,
                add_generation_prompt=add_generation_prompt,
            )
            return tokenizer.decode(ids, skip_special=False)

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            """The template, for the harness's record."""
            return str(model.chat_template) if chat_template else None

    return JaxLM()


def _seq2seq(
    model: LanguageModel, requests: Sequence[tuple[Any, list[int], list[int]]], longest: int
) -> list[tuple[float, bool]]:
    """The continuations as targets, the contexts as sources."""
    texts = [[*model.start, *target[-longest:]] for _, _, target in requests]
    sources = [context[-longest:] for _, context, _ in requests]
    scores = scoring.score(
        model.model,
        model.params,
        texts,
        top=0,
        vocab_size=model.model.config.vocab_size,
        sources=sources,
    )
    return [(float(sum(s.log_probs)), all(s.is_best)) for s in scores]


def evaluate(
    model: LanguageModel,
    tasks: Sequence[str],
    *,
    folder: str | pathlib.Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    samples: int = 1000,
) -> dict[str, dict[str, float]]:
    """The metrics of tasks of the harness, by task: what `lm_eval.simple_evaluate` gives as "results".

    Args:
        model: from `jaxlm.load`.
        tasks: names of tasks, whose data must be there if there is no network.
        folder: folder of more tasks (YAML files).
        limit: examples of each task; default: all.
        num_fewshot: examples in the prompt; default: as the task says.
        samples: of the bootstrap of standard errors.

    Raises:
        ValueError: lm_eval is not installed, or a task is not known.
    """
    adapter = model_for_harness(model)
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=None if folder is None else str(folder))
    unknown = [name for name in tasks if name not in manager.all_tasks]
    if unknown:
        raise ValueError(f"{unknown[0]}: no task of lm-evaluation-harness")
    results = lm_eval.simple_evaluate(
        model=adapter,
        tasks=list(tasks),
        task_manager=manager,
        limit=limit,
        num_fewshot=num_fewshot,
        bootstrap_iters=samples,
    )
    return {
        name: {k.removesuffix(",none"): v for k, v in found.items() if isinstance(v, (int, float))}
        for name, found in results["results"].items()
    }
