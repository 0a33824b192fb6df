"""What interventions cost afterwards, and whether frozen heads should be folded into one.

For every intervention: time per round of the training loop (env steps and update) and size of the
Learner, as ratios to the same run without it, taking turns on one core. For 1, 2, 4 and 8
injections: the gradient with heads evaluated one by one, as the library does, beside the same
frozen heads folded into one wider head.

    python bench/interventions.py [--turns 5]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

from setting import MACHINE, on_one_core, versions

on_one_core()

import jax
import jax.numpy as jnp

from regrow.agents import DoubleDQN
from regrow.environments import Breakout
from regrow.networks.layers import Dense
from regrow.networks.network import Network, convolutional
from regrow.registry import make
from regrow.training.run import Run

WHAT = {
    **{f"inject x{n}": ["inject"] * n for n in (1, 2, 4, 8)},
    **{
        name: [name]
        for name in (
            *("reset", "shrink_perturb", "redo(tau=0.1)", "regrama", "dash", "widen"),
            *("continual_backprop", "self_normalized_reset", "hare_tortoise"),
        )
    },
}
TURN = 4_000  # env steps


def rate(run: Run) -> tuple[Run, float]:
    began = time.perf_counter()
    run = run.advance(TURN)[0]
    return run, TURN / (time.perf_counter() - began)


def megabytes(run: Run) -> float:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(run.state.agent)) / 1e6


def cost(start: Run, texts: list[str], turns: int) -> dict[str, float]:
    """Time per round and bytes after some interventions, over those without."""
    plain, changed = start.fork(), start.fork()
    for text in texts:
        changed = changed.intervene(make("interventions", text))
    size = megabytes(changed) / megabytes(plain)
    plain, changed = rate(plain)[0], rate(changed)[0]  # compiles
    ratios = []
    for _ in range(turns):
        plain, before = rate(plain)
        changed, after = rate(changed)
        ratios.append(before / after)
    return {"time": round(statistics.median(ratios), 2), "memory": round(size, 2)}


def folded(network: Network) -> Callable[[Network, jax.Array], jax.Array]:
    """The network's function with all frozen heads as one head of twice as many hidden units."""
    heads = [(pair.old.layers, 1.0) for pair in network.residual]
    heads += [(pair.copy, -1.0) for pair in network.residual]
    first = [head[0] for head, _ in heads]
    last = [(head[1], sign) for head, sign in heads]
    w1 = jnp.concatenate([layer.weight for layer in first], axis=1)
    b1 = jnp.concatenate([layer.bias for layer in first])
    w2 = jnp.concatenate([sign * layer.weight for layer, sign in last], axis=0)
    b2 = sum(sign * layer.bias for layer, sign in last)

    def call(live: Network, x: jax.Array) -> jax.Array:
        features = live.features(x)
        flat = features[1].reshape(len(x), -1)
        return jax.nn.relu(flat @ w1 + b1[None]) @ w2 + b2[None] + features[-1]

    return call


def heads(count: int, turns: int) -> dict[str, float]:
    """Microseconds of a gradient with `count` injections, heads apart and folded."""
    network = convolutional((10, 10, 4), 16, 128, 3, key=jax.random.key(0))
    for i in range(count):
        network = network.inject(jax.random.key(i))
    assert all(isinstance(layer, Dense) for layer in network.head), "a head of dense layers"
    x = jax.random.normal(jax.random.key(9), (32, 10, 10, 4))
    live = Network(network.layers, split=network.split)
    fold = folded(network)

    def apart(live: Network, x: jax.Array) -> jax.Array:
        return Network(live.layers, split=live.split, residual=network.residual)(x)

    assert jnp.allclose(apart(live, x), fold(live, x), atol=1e-4)

    def timed(call: Callable[[Network, jax.Array], jax.Array]) -> Callable[[], float]:
        gradient = jax.grad(lambda live: jnp.sum(call(live, x) ** 2))

        @jax.jit
        def loop(live: Network) -> Network:
            def body(_: int, live: Network) -> Network:
                return jax.tree.map(lambda p, g: p - 1e-6 * g, live, gradient(live))

            return jax.lax.fori_loop(0, 100, body, live)

        jax.block_until_ready(loop(live))

        def once() -> float:
            began = time.perf_counter()
            jax.block_until_ready(loop(live))
            return (time.perf_counter() - began) / 100 * 1e6

        return once

    one, other = timed(apart), timed(fold)
    pairs = [(one(), other()) for _ in range(turns * 2)]
    medians = [round(statistics.median(side)) for side in zip(*pairs, strict=True)]
    ratio = round(statistics.median(a / b for a, b in pairs), 2)
    return {"apart_us": medians[0], "folded_us": medians[1], "apart_over_folded": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    start = Run.start(DoubleDQN(), Breakout(), seed=0).advance(8_000)[0]
    print("after / before, per round of 4 env steps and 1 update:")
    costs = {}
    for name, texts in WHAT.items():
        costs[name] = cost(start, texts, turns)
        print(f"  {name:16} time {costs[name]['time']:.2f}   memory {costs[name]['memory']:.2f}")
    print("gradient of a batch of 32, frozen heads apart and folded:")
    folds = {}
    for count in (1, 2, 4, 8):
        folds[count] = heads(count, turns)
        print(f"  {count} injections: {folds[count]}")
    print(json.dumps({"cost": costs, "heads": folds, "machine": MACHINE, **versions(jax)}))


if __name__ == "__main__":
    main()
