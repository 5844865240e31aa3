"""Loads a model to write, chat, embed or predict with: a run, a folder in the Hugging Face layout, or a .gguf file."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax

from jaxlm import hf, sharding
from jaxlm.config import ComputeConfig, EncoderConfig, MeshConfig
from jaxlm.data import frames
from jaxlm.data.frames import prefix_of
from jaxlm.generation.settings import Settings
from jaxlm.hf import generation_config, loading, peft, sentence_transformers
from jaxlm.models import lora
from jaxlm.models.embedder import Embedder, Embedding
from jaxlm.models.heads import CausalLM, Seq2SeqLM
from jaxlm.models.vae import TextVAE
from jaxlm.remote import mirror
from jaxlm.run import adapters, hf_task, restore
from jaxlm.run import folder as run_folder
from jaxlm.run.language_model import LanguageModel
from jaxlm.run.predict import Predictor
from jaxlm.tasks.downstream import pairs
from jaxlm.tasks.pretraining.decoder import bos_before

# of the weights while writing
DTYPES = ("float32", "bfloat16", "float16")
# how a decoder writes if its makers say nothing; an encoder-decoder takes the most probable token
SAMPLING = {"temperature": 0.8, "top_p": 0.95}


def load(
    path: str | os.PathLike,
    *,
    step: run_folder.Step = None,
    mesh: MeshConfig | None = None,
    compute: ComputeConfig | None = None,
    dtype: str | None = None,
) -> LanguageModel:
    """Loads a run, a folder in the Hugging Face layout (or `owner/name` on the hub), or a .gguf file.

    Args:
        path: of the run, folder or file.
        step: of a run's checkpoint, or "best"; default: the newest.
        mesh: shape of the device mesh; default: one device.
        compute: of a model in the Hugging Face layout; default: float32 on CPUs, bfloat16 elsewhere.
        dtype: of the weights while writing, such as "bfloat16", which halves what a token reads; default: as they are.

    Raises:
        ValueError: there is no such model, or it can do nothing here.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    folder = mirror.local(path)
    is_run = folder.is_dir() and (folder / "config.json").is_file() and not hf.is_model(folder)
    if is_run:
        return dataclasses.replace(_from_run(folder, step, mesh), dtype=dtype)
    if step is not None:
        raise ValueError(f"{path}: only runs have steps, and this is not the folder of a run")
    return dataclasses.replace(_from_hf(path, mesh, compute), dtype=dtype)


def _from_run(
    folder: pathlib.Path, step: run_folder.Step, mesh: MeshConfig | None
) -> LanguageModel:
    run = restore.restore_model(folder, step=step, mesh=mesh)
    tokenizer = run.task.tokenizer
    edges: dict[Any, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    if tokenizer is not None:
        edges[CausalLM] = (_some(bos_before(tokenizer)), ())
        edges[Seq2SeqLM] = ((), _some(tokenizer.eos_id))
        if run.task.embedding is not None:
            edges[type(run.task.model)] = pairs.edges(tokenizer)
    predictor = functools.partial(Predictor, run) if run.task.predicts() else None
    return _language_model(
        run.task.model,
        f"{folder}: task {run.task.name}",
        given=run.task.writing(),
        edges=run.task.prompt_edges() or edges.get(type(run.task.model)),
        prefix=run.task.prefix,
        name=folder.name,
        # one product a matrix instead of three
        params=adapters.merge(run.params, lora.without(run.params)),
        tokenizer=tokenizer,
        mesh=None if mesh is None else run.mesh,
        is_prefix=run.task.reads_prompts_both_ways,
        embedding=run.task.embedding,
        make_predictor=predictor,
    )


def _from_hf(
    path: str | os.PathLike, mesh: MeshConfig | None, compute: ComputeConfig | None
) -> LanguageModel:
    folder = chosen = loading.local_folder(path)
    if peft.is_adapter(folder) and not (folder / generation_config.NAME).is_file():
        # what the makers of its base chose
        chosen = pathlib.Path(peft.read(folder).base())
    devices = None if mesh is None else sharding.make_mesh(mesh)
    loaded = hf.load(folder, mesh=devices, compute=compute)
    if loaded.tokenizer is None:
        raise ValueError(f"{path}: the model has no tokenizer")

    def predictor() -> Predictor:
        one = sharding.make_mesh(MeshConfig(), jax.local_devices()[:1])
        found = hf_task.find(path, None, devices or one, compute=compute)
        return Predictor(hf_task.with_params(found, loaded.params))

    return _language_model(
        loaded.model,
        str(path),
        given=generation_config.read(chosen) if chosen.is_dir() else None,
        prefix=prefix_of(loaded.settings),
        embedding=sentence_transformers.read(folder),
        name=pathlib.Path(path).name,
        params=loaded.params,
        tokenizer=loaded.tokenizer,
        mesh=devices,
        make_predictor=predictor,
    )


def _language_model(
    model: Any,
    where: str,
    *,
    params: Any,
    tokenizer: Any,
    given: dict[str, Any] | None = None,
    edges: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
    embedding: Embedding | None = None,
    **parts: Any,
) -> LanguageModel:
    """A loaded model by its kind.

    Args:
        model: from `models.heads`.
        where: for the error that it can do nothing here.
        params: its parameters.
        tokenizer: its tokenizer.
        given: defaults of requests that its makers chose.
        edges: control tokens before and after a text; default: as the tokenizer adds them.
        embedding: how the model embeds texts, if it was made for that.
        parts: other fields of `LanguageModel`.
    """
    if tokenizer is None:
        frame = frames.Frame()
    else:
        frame = frames.Frame(*edges) if edges else frames.of(tokenizer)
    parts |= dict(tokenizer=tokenizer, before=frame.before)
    defaults: dict[str, Any] = {"stop_ids": tokenizer.end_ids if tokenizer else ()}
    if embedding is not None:
        most = min(embedding.max_len or model.config.max_len, model.config.max_len)
        embedding = dataclasses.replace(embedding, max_len=most)
    is_encoder = isinstance(getattr(model, "config", None), EncoderConfig)
    if tokenizer is not None and (embedding is not None or is_encoder):
        e = embedding or Embedding()
        embedder = Embedder(model.config, e.pooling, e.normalize, model.compute)
        parts |= dict(kind="encoder", defaults=Settings(), after=frame.after, embedding=e)
        return LanguageModel(model=embedder, params={"backbone": params["backbone"]}, **parts)
    if isinstance(model, CausalLM):
        settings = Settings(**defaults | SAMPLING | (given or {}))
        return LanguageModel(kind="decoder", model=model, params=params, defaults=settings, **parts)
    parts |= dict(after=frame.after)
    if isinstance(model, Seq2SeqLM):
        settings = Settings(**defaults | {"temperature": 0.0} | (given or {}))
        start = _some(tokenizer.start_id)
        parts |= dict(kind="encoder_decoder", defaults=settings, start=start)
        return LanguageModel(model=model, params=params, **parts)
    if parts["make_predictor"] is None:
        if isinstance(model, TextVAE):
            raise ValueError(
                f"{where}: a text VAE, which continues no text: `jaxlm vae` writes and compares texts with it, in "
                "Python `jaxlm.run.latents.load`"
            )
        raise ValueError(
            f"{where}: a {type(model).__name__}, which neither writes nor embeds texts, nor predicts"
        )
    return LanguageModel(kind="predictor", model=model, params=params, defaults=Settings(), **parts)


def _some(token: int | None) -> tuple[int, ...]:
    return () if token is None else (token,)
