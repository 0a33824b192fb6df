"""Supervised relabelling, the cheapest training that loses plasticity: pools of forks.

    python bench/calibration/supervised.py [--seeds 800] [--out runs/calibration/supervised]

256 inputs N(0, 1)⁶⁴ and 10 classes; every task has new random labels; a network 64-64-64-10 is
trained with Adam at 3e-3, never reset, for 600 updates of batch 64 a task. Accuracy falls from 1.00
on the first tasks to 0.14 by the 30th. At each of `DOSES` tasks the network is forked: both arms
train on two more tasks, two replicates each; the return is the accuracy on the batches, in 20 bins
of time. Injection renews the last two layers. Every 40 seeds are a file: stopped anywhere, it
continues.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

INPUTS, WIDTH, CLASSES, EXAMPLES, BATCH, UPDATES = 64, 64, 10, 256, 64, 600
DOSES = (1, 4, 8, 10, 12, 14, 16, 20, 26)
HORIZON, REPLICATES, SPLIT, BINS, TOGETHER = 2, 2, 1, 20, 40
OPTIMIZER = optax.adam(3e-3)
OUT = Path("runs/calibration/supervised")
Params = list[tuple[jax.Array, jax.Array]]


def fresh(key: jax.Array) -> Params:
    sizes = (INPUTS, WIDTH, WIDTH, CLASSES)
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (a, b)) * jnp.sqrt((2 if b == WIDTH else 1) / a), jnp.zeros(b))
        for k, a, b in zip(keys, sizes, sizes[1:], strict=False)
    ]


def layers(params: Params, x: jax.Array, start: int = 0) -> list[jax.Array]:
    """The outputs of the layers from `start` on."""
    outs = []
    for i, (weight, bias) in enumerate(params):
        if i < start:
            continue
        x = x @ weight + bias
        x = jax.nn.relu(x) if i < len(params) - 1 else x
        outs.append(x)
    return outs


def logits(params: dict[str, Any], frozen: dict[str, Any], x: jax.Array) -> jax.Array:
    """h_θ or, after an injection, h_θ + h_θ'₁ − h_θ'₂, of which θ'₁ learns."""
    if not frozen:
        return layers(params["all"], x)[-1]
    features = x
    for weight, bias in params["all"]:
        features = jax.nn.relu(features @ weight + bias)
    old, new, minus = frozen["old"], params["head"], frozen["minus"]
    return layers(old, features)[-1] + layers(new, features)[-1] - layers(minus, features)[-1]


def trained(params: Any, frozen: Any, state: Any, x: jax.Array, key: jax.Array) -> Any:
    """One task: (params, optimizer state, accuracy in bins)."""
    of_labels, of_batches = jax.random.split(key)
    labels = jax.random.randint(of_labels, (EXAMPLES,), 0, CLASSES)

    def loss(params: Any, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = logits(params, frozen, x[rows])
        wrong = optax.softmax_cross_entropy_with_integer_labels(out, labels[rows])
        return wrong.mean(), (out.argmax(-1) == labels[rows]).mean()

    def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        rows = jax.random.randint(key, (BATCH,), 0, EXAMPLES)
        gradient, right = jax.grad(loss, has_aux=True)(params, rows)
        change, state = OPTIMIZER.update(gradient, state)
        return (optax.apply_updates(params, change), state), right

    keys = jax.random.split(of_batches, UPDATES)
    (params, state), right = jax.lax.scan(step, (params, state), keys)
    return params, state, right.reshape(BINS // HORIZON, -1).mean(1)


def injected(params: Any, key: jax.Array) -> tuple[Any, Any]:
    head = fresh(key)[SPLIT:]
    frozen = {"old": params["all"][SPLIT:], "minus": head}
    return {"all": params["all"][:SPLIT], "head": head}, frozen


def probes(params: Any, x: jax.Array) -> dict[str, jax.Array]:
    """Of the last hidden layer at the fork, as `regrow.probes` defines them; weight norm of all."""
    hidden = layers(params["all"], x)[-2]
    active = (hidden > 0).mean(0)
    score = jnp.abs(hidden).mean(0)
    singular = jnp.linalg.svd(hidden, compute_uv=False)
    share = jnp.cumsum(singular) / jnp.maximum(singular.sum(), 1e-12)
    p = singular / jnp.maximum(singular.sum(), 1e-12)
    flat = jnp.concatenate([jnp.ravel(w) for w in jax.tree.leaves(params)])
    return {
        "dead_units": (active == 0).mean(),
        "dormant_units": (score <= 0.025 * jnp.maximum(score.mean(), 1e-12)).mean(),
        "srank": (share < 0.99).sum() + 1.0,
        "effective_rank": jnp.exp(-(p * jnp.log(jnp.maximum(p, 1e-12))).sum()),
        "stable_rank": (singular**2).sum() / jnp.maximum(singular[0] ** 2, 1e-12),
        "feature_norm": jnp.linalg.norm(hidden, axis=1).mean(),
        "weight_norm": jnp.linalg.norm(flat),
        "weight_magnitude": jnp.abs(flat).mean(),
    }


@jax.jit
@jax.vmap
def forked(params: Any, state: Any, x: jax.Array, key: jax.Array) -> Any:
    """((2, replicates, bins) accuracies of both arms, probes, those of a fresh network)."""
    curves = []
    for arm in range(2):
        runs = []
        for replicate in range(REPLICATES):
            own, frozen, held = params, {}, state
            if arm:
                own, frozen = injected(params, jax.random.fold_in(key, 1))
                old = OPTIMIZER.init(own)
                moments = state[0]
                mu = {"all": moments.mu["all"][:SPLIT], "head": old[0].mu["head"]}
                nu = {"all": moments.nu["all"][:SPLIT], "head": old[0].nu["head"]}
                held = (moments._replace(mu=mu, nu=nu), *state[1:])
            parts = []
            for task in range(HORIZON):
                # Replicates differ in their labels and in their batches.
                one = jax.random.fold_in(jax.random.fold_in(key, 50 + task), replicate)
                own, held, right = trained(own, frozen, held, x, one)
                parts.append(right)
            runs.append(jnp.concatenate(parts))
        curves.append(jnp.stack(runs))
    new = {"all": fresh(jax.random.fold_in(key, 2))}
    return jnp.stack(curves), probes(params, x), probes(new, x)


@jax.jit
@jax.vmap
def one_task(params: Any, state: Any, x: jax.Array, key: jax.Array) -> Any:
    params, state, _ = trained(params, {}, state, x, key)
    return params, state


def pool(seeds: np.ndarray) -> dict[str, np.ndarray]:
    """What these seeds did at every dose; curves: (doses, 2, replicates, seeds, bins)."""
    roots = jax.vmap(jax.random.key)(seeds)
    params = {"all": jax.vmap(fresh)(roots)}
    state = jax.vmap(OPTIMIZER.init)(params)
    x = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, 7), (EXAMPLES, INPUTS)))(roots)
    curves, measured, new = [], [], []
    for task in range(max(DOSES) + 1):
        keys = jax.vmap(lambda k, t=task: jax.random.fold_in(k, 100 + t))(roots)
        if task in DOSES:
            found, at, of_fresh = forked(params, state, x, keys)
            curves.append(np.moveaxis(np.asarray(found), 0, 2))
            measured.append({name: np.asarray(v) for name, v in at.items()})
            new.append({name: np.asarray(v) for name, v in of_fresh.items()})
        params, state = one_task(params, state, x, keys)
    probed = {
        f"{kind}.{name}": np.stack([held[name] for held in all_])
        for kind, all_ in (("fork", measured), ("fresh", new))
        for name in all_[0]
    }
    return {"curves": np.stack(curves), **probed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=800)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for start in range(0, options.seeds, TOGETHER):
        path = options.out / f"{start:05}.npz"
        if path.is_file():
            continue
        began = time.monotonic()
        held = pool(np.arange(start, start + TOGETHER))
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, **held)
        part.rename(path)
        effect = held["curves"].mean((2, 3, 4))
        seconds = f"{time.monotonic() - began:.0f} s"
        print(path.name, np.round(effect, 3).tolist(), seconds, flush=True)


if __name__ == "__main__":
    main()
