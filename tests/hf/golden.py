"""The golden folders, and the outputs of our models on their inputs, layer by layer."""

import dataclasses
import pathlib

import jax
from safetensors import safe_open

from jaxlm import hf
from jaxlm.config import ComputeConfig, EncoderDecoderConfig
from jaxlm.models import heads, surgery

ROOT = pathlib.Path(__file__).parents[1] / "golden"
FOLDERS = {path.parent.name: path.parent for path in sorted(ROOT.glob("*/expected.safetensors"))}
F32 = ComputeConfig(dtype="float32", attention="xla", unroll=1)


def load(name, **options):
    return hf.load(FOLDERS[name], compute=F32, **options)


def expected(name):
    """Inputs by the names of transformers; logits, hidden states, and which tokens are real."""
    with safe_open(FOLDERS[name] / "expected.safetensors", "numpy") as f:
        arrays = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118
    names = ("logits", "pair_logits", "hidden", "encoder_hidden")
    outputs = {key: arrays.pop(key) for key in names if key in arrays}
    mask = arrays.get("decoder_attention_mask", arrays["attention_mask"])
    return arrays, outputs | {"real": mask > 0}


def first_layers(loaded, count):
    """The backbone with only the first layers, and without the final norm."""
    config, params = surgery.keep_layers(loaded.config, loaded.params, range(count))
    without_final = tuple(x for x in config.extra_norms if x != "final")
    model = heads.Headless(dataclasses.replace(config, extra_norms=without_final), F32)
    params = jax.tree.map(lambda x: x, params)
    params.pop("head", None)
    params["backbone"].pop("final_norm", None)
    return dataclasses.replace(loaded, model=model, params=params, config=config)


def layers(loaded, inputs, want):
    """(name, our output, expected output, real positions) after each layer but the last, whose output is normalized."""
    if isinstance(loaded.config, EncoderDecoderConfig) and "decoder_input_ids" not in inputs:
        return
    if isinstance(loaded.config, EncoderDecoderConfig):
        yield from _layers_of_both(loaded, inputs, want)
        return
    for layer in range(1, len(want["hidden"]) - 1):
        got = first_layers(loaded, layer)(**inputs)
        yield f"layer {layer}", got, want["hidden"][layer], want["real"]


def _layers_of_both(loaded, inputs, want):
    config, params = surgery.encoder_of(loaded.config, loaded.params)
    model = heads.Headless(config, F32)
    encoder = dataclasses.replace(loaded, model=model, config=config, params=params)
    source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    real, states = inputs["attention_mask"] > 0, want["encoder_hidden"]
    for layer in range(1, len(states) - 1):
        got = first_layers(encoder, layer)(**source)
        yield f"encoder layer {layer}", got, states[layer], real
    yield "encoder's last layer", encoder(**source), states[-1], real

    backbone = loaded.params["backbone"]
    embed = backbone["embed"] | backbone["decoder"].get("embed", {})
    params = {"backbone": backbone["decoder"] | {"embed": embed}}
    decoder = dataclasses.replace(loaded, config=loaded.config.decoder, params=params)
    for layer in range(1, len(want["hidden"]) - 1):
        part = first_layers(decoder, layer)
        got = part.model.apply(
            {"params": part.params},
            inputs["decoder_input_ids"],
            segment_ids=inputs["decoder_attention_mask"],
            memory=states[-1],
            memory_segment_ids=inputs["attention_mask"],
        )
        yield f"decoder layer {layer}", got, want["hidden"][layer], want["real"]
