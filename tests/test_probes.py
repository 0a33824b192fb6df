"""What every probe has to keep to, and what it says of networks that are known to be broken."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probing import (
    KEY,
    PARTS,
    Regression,
    Two,
    broken,
    learns,
    small,
    transitions,
    values,
    weights,
)
from small import DQN

from regrow.environments import Breakout, ObservationReward
from regrow.errors import RegrowError
from regrow.interventions import Inject, Reset
from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.network import Network, mlp
from regrow.probes import (
    DeadUnits,
    DistanceFromInit,
    FeatureNorm,
    GradientCosine,
    GradientNorm,
    Srank,
    WeightChange,
    WeightMagnitude,
    WeightNorm,
)
from regrow.probes.base import PartProbe, Past
from regrow.registry import make, members
from regrow.training.checkpoint import load, save
from regrow.training.probing import every_probe
from regrow.training.run import Run

EVERY = sorted(members("probes"))
OF_PARTS = [name for name in EVERY if issubclass(members("probes")[name], PartProbe)]


@pytest.fixture(scope="module")
def run() -> Run:
    return Run.start(DQN, Breakout(), seed=0).advance(80)[0]


@pytest.fixture(scope="module", params=["mlp", "conv"])
def case(request):
    return broken(request.param)


# The contract.


def test_frozen_heads_are_not_measured(case):
    learner, x, _ = case
    injected = learner.network.inject(KEY)
    plain = Learner.create(Network(injected.layers, split=1), Optimizer())
    whole = Learner.create(injected, Optimizer())
    probes = [DeadUnits(), Srank(), WeightNorm(), WeightMagnitude(), FeatureNorm()]
    assert values(probes, whole, x) == values(probes, plain, x)


@pytest.fixture(scope="module")
def found(run) -> dict[str, dict[str, dict[str, float]]]:
    """What every probe says of a Run, by what was done to it, by the probe's name."""
    probes = {
        name if part is None else f"{name}.{part}": quick(name, part)
        for name in EVERY
        for part in (PARTS if name in OF_PARTS else (None,))
    }

    of_parts = {name: probe for name, probe in probes.items() if isinstance(probe, PartProbe)}

    def said(run: Run, probes=probes, **how) -> dict[str, dict[str, float]]:
        return dict(zip(probes, run.probe(list(probes.values()), count=32, **how), strict=True))

    def broken(field: str, number: float) -> Run:
        """With one number for all the parameters in some place."""
        layer = run.state.agent.q.network.layers[1]
        filled = jnp.full_like(getattr(layer, field), number)
        return eqx.tree_at(lambda r: getattr(r.state.agent.q.network.layers[1], field), run, filled)

    return {
        "now": said(run),
        "again": said(run),
        "fresh": said(run, fresh=True),
        "no encoder": said(run.intervene(Inject(split=0)), of_parts),
        "no number": said(broken("bias", np.nan)),
        "too large": said(broken("weight", 3e38)),  # to be multiplied; finite as it stands
    }


def quick(name: str, part: str | None):
    """A probe of which as little is asked as it takes."""
    less = {"trainability": {"updates": 5}, "curvature": {"iterations": 2}}
    return members("probes")[name](**less.get(name, {}), **({} if part is None else {"part": part}))


def parts(name: str) -> list[str]:
    return [f"{name}.{part}" for part in PARTS] if name in OF_PARTS else [name]


@pytest.mark.parametrize("name", OF_PARTS)
def test_a_part_that_is_not_there_is_nan(found, name):
    encoder, head = (found["no encoder"][part]["q"] for part in parts(name))
    assert np.isnan(encoder)
    assert np.isfinite(head) or name == "dead_overlap"  # nothing may have been dormant


@pytest.mark.parametrize("name", EVERY)
def test_a_probe_is_repeatable_and_is_there_for_a_fresh_network(found, name):
    for part in parts(name):
        now, again, fresh = (found[how][part] for how in ("now", "again", "fresh"))
        assert set(now) == set(fresh) == {"q"}
        assert now == pytest.approx(again, rel=0, abs=0, nan_ok=True)
        assert np.isfinite([now["q"], fresh["q"]]).all() or name == "dead_overlap"


@pytest.mark.parametrize("name", EVERY)
def test_a_network_that_diverged_is_nan_not_dead(found, name):
    for part in parts(name):
        assert np.isnan(found["no number"][part]["q"])
        assert np.isnan(found["too large"][part]["q"])


def test_a_probe_looks_at_every_learner_and_takes_each_for_itself():
    network, x = small("mlp")
    state, batch = Two(learns(network), learns(mlp(3, (4,), 2, key=KEY))), transitions(x)
    turned = batch._replace(obs_tm1=x[::-1], obs_t=x)

    @jax.jit
    def said(state, batch):
        return [
            probe(state, agent=Regression(), batch=batch, key=KEY, past=Past(state, state))
            for probe in (WeightNorm(), GradientNorm(), GradientCosine(), FeatureNorm())
        ]

    for both, swapped in zip(
        said(state, batch), said(Two(state.right, state.left), turned), strict=True
    ):
        assert set(both) == {"left", "right"}
        for one, other in (("left", "right"), ("right", "left")):
            assert float(both[one]) == pytest.approx(float(swapped[other]), rel=1e-5)


def test_the_start_of_a_run_is_known_exactly(run, tmp_path):
    """Also to a fork with draws of its own, and to a Run that was saved and loaded."""
    probes = [DistanceFromInit(part) for part in PARTS]
    at_rest = Run.start(DQN, Breakout(), seed=3).advance(20)[0]  # nothing learnt yet
    other = at_rest.fork(replicate=2)
    assert [each["q"] for each in at_rest.probe(probes)] == [0, 0]
    assert [each["q"] for each in other.probe(probes)] == [0, 0]
    start = Run.start(DQN, Breakout(), seed=0).state.agent.q.network
    now = run.state.agent.q.network
    expected = np.linalg.norm(weights(now.head) - weights(start.head))
    fork = run.fork(replicate=7)
    save(fork, tmp_path / "run.ckpt")
    for one in (
        run,
        fork,
        load(tmp_path / "run.ckpt"),
        load(tmp_path / "run.ckpt").fork(replicate=1),
    ):
        assert one.probe(probes)[1]["q"] == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_an_earlier_run_may_be_the_past(run):
    later = run.fork().advance(40)[0]
    probes = [WeightChange(), DistanceFromInit()]
    change, distance = (each["q"] for each in later.probe(probes, since=run))
    was, now = (weights(one.state.agent.q.network.head) for one in (run, later))
    assert change == pytest.approx(np.sqrt(((now - was) ** 2).mean()), rel=1e-4)
    from_start = later.probe(probes)
    assert distance == from_start[1]["q"]
    assert from_start[0]["q"] == pytest.approx(distance / now.size**0.5, rel=1e-5)
    assert later.probe(probes, since=later)[0]["q"] == 0
    # A layer that was drawn anew has changed by the draw.
    renewed = later.intervene(Reset())
    assert renewed.probe(probes, since=later)[0]["q"] > 0
    elsewhere = Run.start(DQN, ObservationReward(), seed=0).advance(40)[0]
    assert np.isnan(later.probe(probes, since=elsewhere)[0]["q"])
    used_up = later.fork()
    used_up.advance(4)
    with pytest.raises(RegrowError, match="this Run was advanced before"):
        later.probe(probes, since=used_up)


def test_a_diagnosis_leaves_the_costly_probes_out():
    usual, all_of_them = every_probe(), every_probe(costly=True)
    assert usual.items() <= all_of_them.items()
    assert not any(probe.costly for probe in usual.values())
    assert {name.split(".")[0] for name in all_of_them} == set(EVERY)
    assert {"trainability.network", "srank.encoder", "srank.head"} <= set(all_of_them)
    costly = {name.split(".")[0] for name in all_of_them.keys() - usual.keys()}
    assert costly == {
        *("curvature", "gradient_cosine", "gradient_dormancy", "ntk_rank"),
        *("policy_churn", "trainability", "value_churn"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("srank(delta=0.0)", "delta is 0.0; it must be between 0 and 1"),
        ("approximate_rank(delta=1.0)", "delta is 1.0; it must be between 0 and 1"),
        ("dormant_units(tau=-1.0)", "tau is -1.0; it must be 0 or more"),
        ("gradient_dormancy(tau=-1.0)", "tau is -1.0; it must be 0 or more"),
        ("dead_overlap(tau=-0.1)", "tau is -0.1; it must be 0 or more"),
        ("dead_by_firing(tau=0.0)", "tau is 0.0; it must be above 0 and at most 1"),
        ("dead_units(threshold=1.5)", "threshold is 1.5; it must be between 0 and 1"),
        ("feature_rank(epsilon=0)", "epsilon is 0.0; it must be > 0"),
        ("gradient_cosine(samples=1)", "samples is 1; it must be at least 2"),
        ("ntk_rank(samples=0)", "samples is 0; it must be at least 1"),
        ("ntk_rank(threshold=1.0)", "threshold is 1.0; it must be between 0 and 1"),
        ("curvature(iterations=0)", "iterations is 0; it must be at least 1"),
        ("trainability(updates=0)", "updates is 0; it must be at least 1"),
        ("srank(part='tail')", "part is 'tail'; it must be one of: encoder, head"),
        ("trainability(part='head')", "no field of trainability 'part'"),
    ],
)
def test_a_probe_that_cannot_be_is_refused(text, message):
    with pytest.raises(RegrowError, match=message):
        make("probes", text)
