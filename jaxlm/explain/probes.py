"""Linear probes: whether a property of tokens can be read from activations, and how much of that is the probe's work.

Letters: N examples, L layers, D width, C classes.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int


class Probed(NamedTuple):
    """Accuracies on held-out examples."""

    # [L] or a number, as the features have layers
    accuracy: Float[Array, "*L"]
    # of a probe for the control task
    control: Float[Array, "*L"]

    @property
    def selectivity(self) -> Float[Array, "*L"]:
        """Accuracy minus that of the control task: what is in the activations rather than in the probe."""
        return self.accuracy - self.control


def control_labels(
    types: Int[np.ndarray, " N"], classes: int, seed: int = 0
) -> Int[np.ndarray, " N"]:
    """The control task: each type (the id of a word) has a class drawn at random once, so that only a probe that
    remembers words can do it (Hewitt and Liang 2019, 1909.03368, section 2)."""
    names, index = np.unique(np.asarray(types), return_inverse=True)
    return np.random.default_rng(seed).integers(0, classes, len(names))[index]


def probe(
    features: Float[Array, "*L N D"],
    labels: Int[np.ndarray, " N"],
    types: Int[np.ndarray, " N"],
    *,
    held_out: float = 0.3,
    l2: float = 1e-2,
    seed: int = 0,
) -> Probed:
    """Held-out accuracy of a linear probe (Alain and Bengio 2016, 1610.01644) and of one for the control task.

    Logistic regression with mean cross-entropy + l2 / 2 ||W||^2 on standardised features, by L-BFGS.

    Args:
        features: activations, such as a captured place at some tokens; with layers in front, a probe for each.
        labels: class of each example, from 0.
        types: what the control task remembers: the token's id.
        held_out: fraction of the examples that the accuracies are from, drawn at random.
        l2: weight of the penalty.
        seed: of the split and of the control task.

    Raises:
        ValueError: sizes do not fit, or there are too few examples or classes.
    """
    labels, types = np.asarray(labels), np.asarray(types)
    count = features.shape[-2]
    if not len(labels) == len(types) == count:
        raise ValueError(f"{count} features, {len(labels)} labels and {len(types)} types")
    classes = int(labels.max(initial=0)) + 1
    test = round(count * held_out)
    if classes < 2 or not 0 < test < count:
        raise ValueError(
            f"a probe needs two classes and examples on both sides of the split, not {classes} classes and {test} of "
            f"{count} examples held out"
        )
    order = np.random.default_rng(seed).permutation(count)
    control = control_labels(types, classes, seed)
    targets = jnp.stack([jnp.asarray(labels), jnp.asarray(control)])
    run = functools.partial(_accuracy, classes=classes, l2=l2)
    split = lambda x: (x[..., order[test:], :], x[..., order[:test], :])
    flat = jnp.asarray(features, jnp.float32).reshape(-1, count, features.shape[-1])
    train, rest = split(flat)
    found = jax.jit(
        lambda: jax.lax.map(
            lambda x: jax.vmap(lambda y: run(x[0], y[order[test:]], x[1], y[order[:test]]))(
                targets
            ),
            (train, rest),
        )
    )()
    return Probed(*found.T.reshape(2, *features.shape[:-2]))


def _accuracy(x, y, test_x, test_y, *, classes: int, l2: float) -> Array:
    """Trains on x [N, D], y [N]; the accuracy on the other examples."""
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x, test_x = (x - mean) / deviation, (test_x - mean) / deviation

    def loss(w: tuple[Array, Array]) -> Array:
        terms = optax.softmax_cross_entropy_with_integer_labels(x @ w[0] + w[1], y)
        return terms.mean() + l2 / 2 * jnp.square(w[0]).sum()

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry, _):
        w, state = carry
        value, slopes = value_and_grad(w, state=state)
        change, state = optimizer.update(slopes, state, w, value=value, grad=slopes, value_fn=loss)
        return (optax.apply_updates(w, change), state), None

    start = jnp.zeros((x.shape[1], classes)), jnp.zeros(classes)
    (w, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=50)
    return ((test_x @ w[0] + w[1]).argmax(-1) == test_y).mean()
