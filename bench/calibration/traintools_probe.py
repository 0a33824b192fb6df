"""The Plasticity Score of traintools 0.6.2 as a classifier of lost plasticity, on the same forks.

    python bench/calibration/traintools_probe.py    # needs: pip install 'regrow[bench,test]'

The score is the geometric mean, over activation layers, of the share of live units and the
effective rank of the activations. Small means: plasticity is lost. The networks are those of
`supervised.py` and `breakout.py`, trained again to the fork; which of them have lost plasticity is
read from docs/calibration. Scores are divided by those of fresh networks. The results go to
docs/calibration/traintools.json, and `area` is that of "the smaller the score, the more is lost".
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import breakout
import jax
import numpy as np
import supervised
import torch
from analyse import FOLDER, scores
from torch import nn
from traintools.plasticity import PlasticityProbe

from regrow.agents import DoubleDQN
from regrow.diagnosis.plan import SMALLEST_EFFECT
from regrow.environments import Breakout
from regrow.learners.learner import learners
from regrow.prng import key_at
from regrow.training.run import Run

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from in_torch import as_module, channels_first, tensor

SEEDS = 200


def score(module: nn.Module, inputs: torch.Tensor) -> float:
    probe = PlasticityProbe(module)
    with torch.no_grad():
        module(inputs)
    return float(probe.measure().global_score)


def fork(gone: bool, value: float, fresh: float) -> dict[str, Any]:
    # The sign is turned, so that more means more lost, as `scores` has it.
    return {"lost": gone, "probes": {"PlasticityProbe": -value / fresh}}


def as_mlp(params: Any, seed: int) -> nn.Sequential:
    """A network of supervised.py."""
    steps = list[nn.Module]()
    for weight, bias in params["all"]:
        step = nn.Linear(*weight.shape[1:])
        with torch.no_grad():
            step.weight.copy_(tensor(weight[seed]).T)
            step.bias.copy_(tensor(bias[seed]))
        steps += [step, nn.ReLU()]
    return nn.Sequential(*steps[:-1])


def relabelled() -> Iterator[dict[str, Any]]:
    told = json.loads((FOLDER / "supervised.json").read_text("utf-8"))["rates"]
    truth = {one["scenario"]: one["true_effect"] for one in told}
    for start in range(0, SEEDS, supervised.TOGETHER):
        roots = jax.vmap(jax.random.key)(np.arange(start, start + supervised.TOGETHER))
        params = {"all": jax.vmap(supervised.fresh)(roots)}
        state = jax.vmap(supervised.OPTIMIZER.init)(params)
        shape = (supervised.EXAMPLES, supervised.INPUTS)
        x = jax.vmap(lambda k, s=shape: jax.random.normal(jax.random.fold_in(k, 7), s))(roots)
        first = [score(as_mlp(params, i), tensor(x[i])) for i in range(supervised.TOGETHER)]
        for task in range(max(supervised.DOSES) + 1):
            if task in supervised.DOSES:
                for i, fresh in enumerate(first):
                    gone = truth[f"{task} tasks"] > SMALLEST_EFFECT
                    yield fork(gone, score(as_mlp(params, i), tensor(x[i])), fresh)
            keys = jax.vmap(lambda k, t=task: jax.random.fold_in(k, 100 + t))(roots)
            params, state = supervised.one_task(params, state, x, keys)


def damaged() -> Iterator[dict[str, Any]]:
    told = json.loads((FOLDER / "minatar.json").read_text("utf-8"))["rates"]
    for one in told:
        (before,) = [
            plan.before
            for name in breakout.SCENARIOS
            if breakout.folder_of(Path(), name).name.replace("-", " ", 1) == one["scenario"]
            for plan in [breakout.plan_of(name, 4)]
        ]
        for seed in range(one["seeds"]):
            run = Run.start(DoubleDQN(), Breakout(), seed=seed)
            run, _ = run.advance(breakout.FORK_AT)
            for what in before:
                run = run.intervene(what)
            state = run.state
            batch = state.replay.sample(key_at(state.root, "probe", state.env_steps), 512)
            (learner,) = learners(state.agent).values()
            inputs = channels_first(batch.obs_tm1)
            fresh = learner.network.fresh(jax.random.key(seed))
            value, base = (score(as_module(n), inputs) for n in (learner.network, fresh))
            yield fork(one["effect"][0] > SMALLEST_EFFECT, value, base)


def main() -> None:
    found = {}
    for name, forks in (("supervised", relabelled()), ("minatar", damaged())):
        held = list(forks)
        (one,) = scores(held)
        found[name] = {"forks": len(held), "lost": sum(f["lost"] for f in held), **one}
        print(name, json.dumps(found[name]), flush=True)
    (FOLDER / "traintools.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
