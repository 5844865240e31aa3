"""Why a model answers as it does: attributions, attention, lenses, patching, probes, and how far to trust them.

    from jaxlm import explain
    subject = explain.load("runs/sst2")
    explain.explain(subject, "a great film", ["rollout", "occlusion"]).save("explanation.html")

The formulas are functions on arrays: `flow`, `gradients`, `removal`, `lens`, `patching`, `probes`, `latents`,
`faithfulness`. `reading` makes what a model answers a function of embeddings; activations come from `models.observe`.
"""

from jaxlm.explain.explanation import Explanation, explain, latents
from jaxlm.explain.subject import Subject, load

__all__ = ["Explanation", "Subject", "explain", "latents", "load"]
