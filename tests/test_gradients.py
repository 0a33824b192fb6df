"""Every gradient term against NumPy in float64, and what no term may do to a Learner."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from refusals import refused_in_a_line
from trees import bit_equal, distance

from regrow.agents import DoubleDQN
from regrow.environments import ConstantReward
from regrow.errors import RegrowError
from regrow.gradients import L2, L2Init, WeightClipping, WeightDecay
from regrow.gradients.base import GradientTerm
from regrow.interventions import Inject, Reset, ShrinkPerturb
from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.learners.recycling import recycled
from regrow.networks.architecture import Architecture
from regrow.networks.network import convolutional, mlp
from regrow.networks.residual import Residual
from regrow.registry import compose, describe, field_types, make, make_all, members
from regrow.training.checkpoint import load, save
from regrow.training.run import Run

KEY = jax.random.key(21)
LR, EPSILON, STEPS = 1e-2, 1e-5, 4


class Leaf(NamedTuple):
    """Where an array stands: its role, whether in the output layer, the fan-in of its layer."""

    role: str
    output: bool
    fan_in: int


def network():
    return convolutional((5, 5, 2), 3, 6, 2, Architecture(layer_norm=True), key=KEY)


def blocks():
    """A part of it has two weights."""
    return mlp(4, (6, 6), 2, Architecture(block="bro", initialiser="torch"), key=KEY)


def learner(text: str = "", made=network, **fields: Any) -> Learner:
    terms = make_all("gradients", text)
    return Learner.create(made(), Optimizer("adam", LR, EPSILON, terms=terms, **fields))


def leaves_of(network) -> Iterator[tuple[Leaf, np.ndarray]]:
    for i, layer in enumerate(network.layers):
        output = i == len(network.layers) - 1
        for one in (layer.inner, layer.outer) if isinstance(layer, Residual) else (layer,):
            fan_in = int(np.prod(one.weight.shape[:-1]))
            arrays = {"weight": one.weight, "bias": one.bias}
            if one.norm is not None:
                arrays |= {"scale": one.norm.weight, "offset": one.norm.bias}
            for role, array in arrays.items():
                yield Leaf(role, output, fan_in), np.asarray(array, np.float64)


def noise(network, step: int):
    """A gradient of size one at the live parameters, None elsewhere."""
    live = eqx.filter(network, network.trainable())
    leaves, structure = jax.tree.flatten(live)
    rng = np.random.default_rng(step)
    drawn = [jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, drawn)


def descended(learner: Learner, steps: int = STEPS) -> Learner:
    for step in range(steps):
        learner = learner.descend(noise(learner.network, step))
    return learner


Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, Leaf], np.ndarray]


def adam_with(on_gradient: Rule, on_update: Rule, made=network) -> list[np.ndarray]:
    """The parameters after some steps of Adam with a rule on either side, leaf by leaf."""
    after = []
    gradients = [list(leaves_of(noise(made(), step))) for step in range(STEPS)]
    for i, (leaf, first) in enumerate(leaves_of(made())):
        theta, m, v = first.copy(), np.zeros_like(first), np.zeros_like(first)
        for t in range(1, STEPS + 1):
            g = on_gradient(gradients[t - 1][i][1], theta, first, leaf)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            update = -LR * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + EPSILON)
            theta = theta + on_update(update, theta, first, leaf)
        after.append(theta)
    return after


def as_it_is(value, theta, first, leaf):
    return value


def l2_init(g, theta, first, leaf):
    return g + 2 * 0.8 * (theta - first) if leaf.role in ("weight", "bias") else g


def parseval(g, theta, first, leaf):
    """By central differences of the penalty."""
    if leaf.role != "weight" or leaf.output:
        return g
    units = theta.shape[-1]

    def penalty(weight):
        rows = np.stack([weight[..., unit].ravel() for unit in range(units)])
        return 0.003 * (64 / units) ** 2 * np.sum((rows @ rows.T - 1.5 * np.eye(units)) ** 2)

    pull = np.zeros_like(theta)
    for at in np.ndindex(theta.shape):
        step = np.zeros_like(theta)
        step[at] = 1e-5
        pull[at] = (penalty(theta + step) - penalty(theta - step)) / 2e-5
    return g + pull


def clipping(update, theta, first, leaf):
    if leaf.role not in ("weight", "bias"):
        return update
    bound = 0.5 / np.sqrt(leaf.fan_in)
    return np.clip(theta + update, -bound, bound) - theta


def projection(update, theta, first, leaf):
    if leaf.role != "weight" or leaf.output:
        return update
    moved = theta + update
    return moved * np.sqrt((first**2).sum() / (moved**2).sum()) - theta


# The text of a member with strong options, its rule on the gradient, its rule on the update.
IN_NUMPY: dict[str, tuple[str, Rule, Rule]] = {
    "weight_decay": ("(strength=3.0)", as_it_is, lambda u, theta, *_: u - LR * 3.0 * theta),
    "l2": ("(strength=0.7)", lambda g, theta, *_: g + 0.7 * theta, as_it_is),
    "l2_init": ("(strength=0.8)", l2_init, as_it_is),
    "weight_clipping": ("(kappa=0.5)", as_it_is, clipping),
    "parseval": ("(strength=0.003, scale=1.5)", parseval, as_it_is),
    "normalize_and_project": ("", as_it_is, projection),
}


def upgd(updates, gradients, thetas, firsts, memory):
    """With β = 0.6 and no noise. The corrected utilities are compared, as in the paper."""
    t = memory["t"] = memory.get("t", 0) + 1
    before = memory.get("utility", [np.zeros_like(theta) for theta in thetas])
    memory["utility"] = [
        0.6 * u - 0.4 * g * theta for u, g, theta in zip(before, gradients, thetas, strict=True)
    ]
    worth = [u / (1 - 0.6**t) for u in memory["utility"]]
    highest = max(u.max() for u in worth)
    return [
        2 * (1 - 1 / (1 + np.exp(-u / highest))) * update - LR * 2.0 * theta
        for u, update, theta in zip(worth, updates, thetas, strict=True)
    ]


def trac(updates, gradients, thetas, firsts, memory):
    """With s_j of size one from the start, so that it is seen."""
    betas = np.array([0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999])
    sigma, variance = memory.get("sigma", np.full(6, 1e-8)), memory.get("variance", np.zeros(6))
    way = memory.get("way", [np.zeros_like(theta) for theta in thetas])
    h = sum((g * each).sum() for g, each in zip(gradients, way, strict=True))
    memory["way"] = [each + update for each, update in zip(way, updates, strict=True)]
    memory["variance"] = betas**2 * variance + h**2
    memory["sigma"] = betas * sigma - h
    reach = memory["sigma"] / (np.sqrt(2 * memory["variance"]) + 1e-8)
    s = 0.5 / scipy.special.erfi(1 / np.sqrt(2)) * scipy.special.erfi(reach).sum()
    memory.setdefault("scales", []).append(max(s, 0.0))
    return [
        first + max(s, 0.0) * each - theta
        for first, each, theta in zip(firsts, memory["way"], thetas, strict=True)
    ]


# Those that hear of the whole network: the text of a member, its rule on all the updates at once.
WHOLE_IN_NUMPY = {
    "upgd": ("(noise=0.0, beta=0.6, decay=2.0)", upgd),
    "trac": ("(scale=0.5)", trac),
}
ALL = [name + text for name, (text, *_) in (IN_NUMPY | WHOLE_IN_NUMPY).items()]


def whole_adam_with(rule, made=network) -> tuple[list[np.ndarray], dict[str, Any]]:
    """(The parameters after some steps of Adam with a rule that sees all leaves, its memory)."""
    firsts = [first for _, first in leaves_of(made())]
    thetas = list(firsts)
    m = v = [np.zeros_like(theta) for theta in thetas]
    memory: dict[str, Any] = {}
    for t in range(1, STEPS + 1):
        gradients = [g for _, g in leaves_of(noise(made(), t - 1))]
        m = [0.9 * a + 0.1 * g for a, g in zip(m, gradients, strict=True)]
        v = [0.999 * b + 0.001 * g * g for b, g in zip(v, gradients, strict=True)]
        updates = [
            -LR * (a / (1 - 0.9**t)) / (np.sqrt(b / (1 - 0.999**t)) + EPSILON)
            for a, b in zip(m, v, strict=True)
        ]
        moves = rule(updates, gradients, thetas, firsts, memory)
        thetas = [theta + move for theta, move in zip(thetas, moves, strict=True)]
    return thetas, memory


def test_every_term_has_its_counterpart_in_numpy():
    assert set(IN_NUMPY) | set(WHOLE_IN_NUMPY) == set(members("gradients"))


@pytest.mark.parametrize("network", [network, blocks], ids=["conv", "blocks"])
@pytest.mark.parametrize("name", WHOLE_IN_NUMPY)
def test_a_term_over_the_network_in_numpy(name, network):
    text, rule = WHOLE_IN_NUMPY[name]
    made = leaves_of(descended(learner(name + text, network)).network)
    plain = leaves_of(descended(learner("", network)).network)
    expected, memory = whole_adam_with(rule, network)
    moved = 0.0
    for (leaf, own), (_, without), wanted in zip(made, plain, expected, strict=True):
        np.testing.assert_allclose(own, wanted, atol=2e-5, err_msg=str(leaf))
        moved = max(moved, np.abs(own - without).max())
    assert moved > 1e-3
    scales = memory.get("scales", [])
    assert scales == [] or min(scales) == 0 < max(scales)  # there and back


def noise_of_upgd(made: Learner) -> list[np.ndarray]:
    """ξ of one step of every part, by what it changes; the gradient is 0, so that nothing else is.

    Nothing is worth anything then: θ moves by −α·σ·ξ.
    """
    still = jax.tree.map(jnp.zeros_like, noise(made.network, 0))
    moved = made.descend(still)
    parts = zip(moved.network.parts(), made.network.parts(), strict=True)
    return [np.asarray(a.weight - b.weight) / -(LR * 3.0) for a, b in parts]


def test_the_noise_of_upgd_is_normal_and_drawn_for_every_part_seed_and_step():
    terms = make_all("gradients", "upgd(noise=3.0, decay=0.0)")
    drawn, thawed = [], []
    for seed in (0, 1):
        made = mlp(64, (64, 64, 64), 2, key=jax.random.key(seed))
        first = Learner.create(made, Optimizer("adam", LR, terms=terms))
        later = first.descend(jax.tree.map(jnp.zeros_like, noise(made, 0)))
        anew = later.with_fresh_statistics()
        drawn += [ξ for learner in (first, later, anew) for ξ in noise_of_upgd(learner)]
        # Both heads step; the old one draws what it would have drawn.
        thawed += noise_of_upgd(
            Inject(split=1, freeze=False).change(first, jax.random.key(seed + 7))
        )
    for of, count in ((drawn, 2 * 3 * 3), (thawed, 2 * 5)):
        square = [ξ for ξ in of if ξ.shape == (64, 64)]
        assert len(square) == count
        for i, one in enumerate(square):
            assert abs(one.mean()) < 0.08
            assert one.std() == pytest.approx(1, abs=0.05)
            for other in square[:i]:
                assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.08


def test_upgd_counts_the_age_of_units_that_are_drawn_anew():
    """What they are worth is not understated: after one step Û is −g∘θ, as of any new weight."""
    made = Learner.create(
        mlp(4, (6, 6), 2, key=KEY), Optimizer(terms=make_all("gradients", "upgd(noise=0.0)"))
    )
    made = descended(made)
    masks = [jnp.arange(6) == 2, jnp.zeros(6, bool)]
    renewed = recycled(made, masks, KEY)
    gradient = noise(renewed.network, 9)
    after = renewed.descend(gradient).statistics[0][1]
    worth = np.asarray(after.utility.weight / after.held.weight)
    expected = -np.asarray(gradient.layers[0].weight * renewed.network.layers[0].weight)
    np.testing.assert_allclose(worth[:, 2], expected[:, 2], rtol=1e-5)
    others = np.delete(np.arange(6), 2)
    np.testing.assert_allclose(after.held.weight[:, others], 1 - 0.999 ** (STEPS + 1), rtol=1e-4)


def test_upgd_without_a_gradient_takes_nothing_for_worth_anything():
    made = learner("upgd(noise=0.0, decay=0.0)")
    still = jax.tree.map(jnp.zeros_like, noise(made.network, 0))
    assert bit_equal(made.descend(still).network, made.network)


def test_with_trac_a_layer_whose_statistics_begin_anew_stays_where_it_is():
    made = descended(learner("trac(scale=0.5)"), 2)
    anew = made.with_fresh_statistics()
    assert bit_equal(anew.network, made.network)
    still = jax.tree.map(jnp.zeros_like, noise(made.network, 0))
    assert bit_equal(anew.descend(still).network, made.network)


@pytest.mark.parametrize("optimizer", ["keep", "reset"])
def test_with_trac_a_new_layer_goes_from_its_own_draw(optimizer):
    """What carries the scale to nothing carries each layer to where it began, not by the old Δ."""
    made = descended(learner("trac(scale=0.5)"), 3)
    injected = Inject(split=0, optimizer=optimizer).change(made, KEY)
    drawn = injected.network.layers
    assert distance(made.statistics[-1][1].way.so_far, jax.tree.map(jnp.zeros_like, drawn[-1])) > 0
    assert all(not np.any(leaf) for leaf in ways(injected))
    kept = optimizer == "keep"
    assert bit_equal(made.statistics[0][1].sigma, injected.statistics[0][1].sigma) == kept
    there = injected
    for step in range(STEPS):
        there = there.descend(noise(there.network, step))
        for first, now, state in zip(drawn, there.network.layers, there.statistics, strict=True):
            scale = max(float(state[1].s.sum()), 0.0)
            expected = jax.tree.map(lambda a, b, s=scale: a + s * b, first, state[1].way.so_far)
            assert distance(now, expected) < 1e-5


def ways(learner: Learner) -> list[np.ndarray]:
    return jax.tree.leaves([state[1].way.so_far for state in learner.statistics])


def test_trac_finds_its_scale():
    """From 1e-8 on, within some tens of steps, in the units of the optimizer's."""
    made, goal = learner("trac"), jax.tree.map(lambda leaf: leaf + 0.3, network())

    @jax.jit
    def step(learner, _):
        gradient = jax.tree.map(lambda a, b: a - b, learner.network, goal)
        return learner.descend(gradient), None

    far = distance(made.network, goal)
    made, _ = jax.lax.scan(step, made, None, 400)
    assert distance(made.network, goal) < 0.1 * far


@pytest.mark.parametrize("network", [network, blocks], ids=["conv", "blocks"])
@pytest.mark.parametrize("name", IN_NUMPY)
def test_a_term_in_numpy(name, network):
    text, on_gradient, on_update = IN_NUMPY[name]
    made = list(leaves_of(descended(learner(name + text, network)).network))
    plain = list(leaves_of(descended(learner("", network)).network))
    expected = adam_with(on_gradient, on_update, network)
    moved = 0.0
    for (leaf, own), (_, without), wanted in zip(made, plain, expected, strict=True):
        np.testing.assert_allclose(own, wanted, atol=3e-6, err_msg=str(leaf))
        moved = max(moved, np.abs(own - without).max())
    assert moved > 1e-4  # the term is seen to matter


def test_plain_adam_in_numpy():
    """So that what differs above is the term."""
    plain = leaves_of(descended(learner()).network)
    for (_, own), wanted in zip(plain, adam_with(as_it_is, as_it_is), strict=True):
        np.testing.assert_allclose(own, wanted, atol=3e-6)


def test_terms_act_in_the_order_given():
    def lengths(learner: Learner) -> list[float]:
        leaves = leaves_of(learner.network)
        return [np.linalg.norm(x) for leaf, x in leaves if leaf.role == "weight" and not leaf[1]]

    def largest(learner: Learner) -> float:
        leaves = leaves_of(learner.network)
        return max(
            np.abs(x).max() * leaf.fan_in**0.5 for leaf, x in leaves if leaf.role == "weight"
        )

    clip, project = "weight_clipping(kappa=0.5)", "normalize_and_project"
    clipped_last = descended(learner(f"{project} + {clip}"))
    projected_last = descended(learner(f"{clip} + {project}"))
    assert largest(clipped_last) == pytest.approx(0.5, rel=1e-5)
    assert largest(projected_last) > 0.6
    np.testing.assert_allclose(lengths(projected_last), lengths(learner()), rtol=1e-5)
    assert max(lengths(clipped_last)) < 0.7 * max(lengths(learner()))


def test_terms_of_both_sides_stand_on_their_own_side():
    """l2 goes through Adam's statistics, weight_decay past them, whatever is named first."""
    orders = ("l2 + weight_decay", "weight_decay + l2")
    both = [descended(learner(text)) for text in orders]
    assert bit_equal(both[0].network, both[1].network)
    moments = descended(learner("weight_decay(strength=9.0)")).statistics[0][0]
    assert bit_equal(moments, descended(learner()).statistics[0])
    coupled = descended(learner("l2(strength=9.0)")).statistics[0][1]
    assert distance(coupled, moments) > 0.1


def test_the_gradient_is_clipped_before_the_terms():
    made = learner("l2(strength=1.0)", max_gradient_norm=1e-6).descend(noise(network(), 0))
    mu = made.statistics[0][1][0].mu.weight
    np.testing.assert_allclose(mu, 0.1 * network().layers[0].weight, atol=1e-6)


def test_nothing_is_what_it_was():
    agent = DoubleDQN(learning_rate=LR)
    assert agent._optimizer() == Optimizer("adam", LR, EPSILON)
    plain = learner()
    assert bit_equal(plain.statistics[0], plain.optimizer.transform.init(plain.network.layers[0]))
    for silent in ("l2(strength=0.0)", "weight_decay(strength=0.0)", "weight_clipping(kappa=1e9)"):
        assert bit_equal(descended(learner(silent)).network, descended(plain).network)


@pytest.mark.parametrize("text", ALL)
def test_frozen_parameters_stay_and_live_ones_move(text):
    made = descended(learner(text), 2)
    for intervention in (Inject(), Inject(split=0), Inject(optimizer="reset")):
        injected = intervention.change(made, KEY)
        live = injected.network.trainable()
        each = [descended(injected, steps) for steps in (1, STEPS)]  # TRAC may not go, or be back
        frozen = [eqx.filter(one.network, live, inverse=True) for one in (injected, *each)]
        assert jax.tree.leaves(frozen[0])
        assert bit_equal(frozen[0], frozen[1])
        assert bit_equal(frozen[0], frozen[2])
        parts = [one.network.parts() for one in (injected, *each)]
        for before, soon, later in zip(*parts, strict=True):
            assert max(distance(before, soon), distance(before, later)) > 1e-3


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("optimizer", ["keep", "reset"])
def test_statistics_keep_their_tree(text, optimizer):
    made = descended(learner(text), 2)
    tree = jax.tree.structure(made.statistics)
    for intervention in (Inject(optimizer=optimizer), Reset("last", optimizer)):
        changed = intervention.change(made, KEY)
        assert jax.tree.structure(changed.statistics) == tree
        assert jax.tree.structure(descended(changed, 1).statistics) == tree
    assert jax.tree.structure(made.with_fresh_statistics().statistics) == tree


def anchors(learner: Learner) -> list[Any]:
    return [state[0].first for state in learner.statistics]


@pytest.mark.parametrize("optimizer", ["keep", "reset"])
def test_a_new_layer_is_pulled_to_its_own_draw(optimizer):
    made = descended(learner("l2_init"))
    assert bit_equal(anchors(made), list(network().layers))
    injected = Inject(optimizer=optimizer).change(made, KEY)
    assert injected.network.split == 1
    assert bit_equal(anchors(injected), [network().layers[0], *injected.network.layers[1:]])
    counts = [int(state[1][0].count) for state in injected.statistics]
    assert counts == ([STEPS] * 3 if optimizer == "keep" else [STEPS, 0, 0])
    assert bit_equal(anchors(descended(injected)), anchors(injected))


@pytest.mark.parametrize("optimizer", ["keep", "reset"])
def test_layers_that_are_moved_are_pulled_to_where_they_began(optimizer):
    made = learner("l2_init")
    moved = ShrinkPerturb(where="head", optimizer=optimizer).change(descended(made), KEY)
    assert bit_equal(anchors(moved), anchors(made))
    counts = [int(state[1][0].count) for state in moved.statistics]
    assert counts == ([STEPS] * 3 if optimizer == "keep" else [STEPS, 0, 0])


def test_anchors_outlive_a_reset_of_the_statistics():
    """The parameters stayed, so what they began with is what it was; the moments are gone."""
    made = descended(learner("l2_init"))
    reset = made.with_fresh_statistics(1)
    assert bit_equal(anchors(reset), anchors(made))
    assert [int(state[1][0].count) for state in reset.statistics] == [STEPS, 0, 0]
    thawed = Inject(freeze=False).change(made, KEY)
    assert bit_equal(anchors(thawed)[3:], list(network().layers[1:]))
    assert bit_equal(anchors(thawed.with_fresh_statistics()), anchors(thawed))


def test_the_output_layer_of_an_unfrozen_head_is_one_too():
    made = Inject(freeze=False).change(learner("parseval(strength=1.0)"), KEY)
    nothing = jax.tree.map(jnp.zeros_like, noise(made.network, 0))
    pulled = [
        distance(before, after) > 0
        for before, after in zip(
            made.network.parts(), made.descend(nothing).network.parts(), strict=True
        )
    ]
    assert pulled == [True, True, False, True, False]  # the live chain, then the old head


@pytest.mark.parametrize("text", ALL)
def test_a_step_is_traced_once_and_gives_the_same_compiled(text):
    traces = []

    @jax.jit
    def step(learner, gradient):
        traces.append(1)
        return learner.descend(gradient)

    made = learner(text)
    for i in range(3):
        made = step(made, noise(made.network, i))
    assert len(traces) == 1
    assert distance(made.network, descended(learner(text), 3).network) < 1e-5


@pytest.mark.slow
def test_a_run_with_all_terms_is_saved_loaded_and_forked(tmp_path):
    agent = DoubleDQN(
        hidden=8,
        learn_start=20,
        replay_capacity=100,
        layer_norm=True,
        churn=2.0,
        churn_share=0.01,
        gradient=" + ".join(ALL),
    )
    assert make("agents", describe(agent)) == agent
    run = Run.start(agent, ConstantReward(), seed=0).intervene(Inject()).advance(40)[0]
    save(run, tmp_path / "run.ckpt")
    loaded = load(tmp_path / "run.ckpt")
    assert bit_equal(loaded.state, run.state)
    assert jax.tree.structure(loaded.state.agent) == jax.tree.structure(run.state.agent)
    ends = [one.advance(40)[0].state for one in (run.fork(), run, loaded)]
    assert bit_equal(ends[0], ends[1])
    assert bit_equal(ends[0], ends[2])


def test_projection_without_normalisation_is_refused():
    bare = Learner.create(
        mlp(4, (8, 8), 2, key=KEY), Optimizer(terms=make_all("gradients", "normalize_and_project"))
    )
    with pytest.raises(RegrowError, match="needs a network with layer_norm=True"):
        bare.descend(noise(bare.network, 0))


def test_terms_are_read_and_printed_back():
    text = " l2(strength=1e+1)+ weight_clipping (kappa=2)  +  parseval( strength=0.1 , scale=1 ) "
    terms = make_all("gradients", text)
    assert [describe(term) for term in terms] == [
        "l2(strength=10.0)",
        "weight_clipping(kappa=2.0)",
        "parseval(strength=0.1, scale=1.0)",
    ]
    assert make_all("gradients", " + ".join(describe(term) for term in terms)) == terms
    assert make_all("gradients", "") == make_all("gradients", "  ") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("l2_int", "no gradient 'l2_int'; did you mean 'l2_init'"),
        ("l2 + l2_int", "no gradient 'l2_int'; did you mean 'l2_init'"),
        ("l2 +", "'' is not a name with fields"),
        ("+ l2", "'' is not a name with fields"),
        ("l2 weight_decay", "is not a name with fields"),
        ("l2(strength=1 + l2", "is not a name with fields"),
        ("l2(strength=0.1 + 0.2)", "a field takes a number"),
        ("l2(strengh=1.0)", "no field of l2 'strengh'; did you mean 'strength'"),
        ("l2(strength='a')", "l2: strength is 'a'; it must be: float"),
        ("l2(strength=-1)", "l2: strength is -1.0; it must be 0 or more"),
        ("l2_init(strength=-1)", "l2_init: strength is -1.0"),
        ("weight_decay(strength=-1)", "weight_decay: strength is -1.0"),
        ("parseval(strength=-1)", "parseval: strength is -1.0"),
        ("parseval(scale=0)", "parseval: scale is 0.0; it must be > 0"),
        ("weight_clipping(kappa=0)", "weight_clipping: kappa is 0.0; it must be > 0"),
        ("upgd(noise=-1)", "upgd: noise is -1.0; it must be 0 or more"),
        ("upgd(beta=1)", "upgd: beta is 1.0; it must be in [0, 1)"),
        ("upgd(beta=0.99999999)", "upgd: beta is 0.99999999; it must be in [0, 1)"),
        ("trac + l2 + trac", "stands among the terms more than once"),
        ("upgd(decay=-1)", "upgd: decay is -1.0; it must be 0 or more"),
        ("trac(scale=0)", "trac: scale is 0.0; it must be > 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(text, message):
    with refused_in_a_line(message):
        DoubleDQN(gradient=text)


COMPOSED = (L2Init(), WeightClipping(kappa=2.0))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("(l2_init(), weight_clipping(kappa=2))", "(l2_init, weight_clipping(kappa=2.0))"),
        ("[l2_init, weight_clipping(kappa=2)]", "(l2_init, weight_clipping(kappa=2.0))"),
        ("'l2_init + weight_clipping(kappa=2)'", "(l2_init, weight_clipping(kappa=2.0))"),
        ("l2_init + weight_clipping(kappa=2)", "(l2_init, weight_clipping(kappa=2.0))"),
        ("('l2_init', weight_clipping(kappa=2),)", "(l2_init, weight_clipping(kappa=2.0))"),
        ("l2_init", "l2_init"),
        ("l2_init()", "l2_init"),
        ("(l2_init,)", "l2_init"),
        ("'l2_init'", "l2_init"),
        ("l2_init(strength=1e-2)", "l2_init(strength=0.01)"),
        ("''", None),
        ("()", None),
    ],
)
@pytest.mark.parametrize("agent", ["double_dqn", "sac", "drq", "ppo"])
def test_agents_take_terms_by_name_and_print_them_back(agent, text, printed):
    made = make("agents", f"{agent}(hidden=8, gradient={text})")
    plain = f"{agent}(hidden=8)"
    expected = plain if printed is None else f"{agent}(hidden=8, gradient={printed})"
    assert sorted(fields_of(describe(made))) == sorted(fields_of(expected))
    again = make("agents", describe(made))
    assert again == made
    assert hash(again) == hash(made)
    assert isinstance(made.gradient, tuple)


def fields_of(text):
    return re.split(r", (?=[a-z_]+=)(?![^(]*\)\))", text.removesuffix(")"))


def test_terms_are_parts_in_python_too():
    made = DoubleDQN(gradient=COMPOSED)
    assert made.gradient == COMPOSED
    assert made == DoubleDQN(gradient="l2_init + weight_clipping(kappa=2)")
    assert made == DoubleDQN(gradient=list(COMPOSED))
    assert made == make("agents", "double_dqn(gradient=(l2_init(), weight_clipping(kappa=2)))")
    assert DoubleDQN(gradient=L2Init()).gradient == (L2Init(),)
    assert DoubleDQN().gradient == DoubleDQN(gradient="").gradient == ()
    replaced = dataclasses.replace(made, gradient="l2_init")
    assert replaced.gradient == (L2Init(),)
    assert dataclasses.replace(replaced, hidden=3).gradient == (L2Init(),)
    assert made._optimizer().terms == COMPOSED


def test_a_preset_and_terms_go_together():
    made = make("agents", "double_dqn:young_tian_2019(gradient=(l2_init, upgd(noise=0)))")
    assert [describe(term) for term in made.gradient] == ["l2_init", "upgd(noise=0.0)"]
    assert make("agents", describe(made)) == made


@dataclasses.dataclass(frozen=True)
class Several(GradientTerm):
    """A term made of others, of a module that is no part of regrow."""

    inner: tuple[GradientTerm, ...] = ()
    rate: float = 1.0

    acts_on = "gradient"

    def __post_init__(self):
        compose(self, "inner", "gradients")

    def transform(self, *, learning_rate, output):
        made = [one.transform(learning_rate=learning_rate, output=output) for one in self.inner]
        return optax.chain(*made)


def test_terms_within_terms_and_those_of_a_module_of_ones_own():
    term = Several((L2Init(), Several((WeightDecay(),))), rate=2.0)
    agent = DoubleDQN(gradient=(term, L2()))
    text = describe(agent)
    name = f"{__name__}:Several"
    assert text.startswith(f"double_dqn(gradient=(\"{name}(inner=(l2_init, '{name}(inner=")
    assert make("agents", text) == agent
    assert make("agents", f"double_dqn(gradient='{name} + l2')").gradient == (Several(), L2())
    assert make("gradients", f"{name}(inner=l2_init)") == Several((L2Init(),))
    with refused_in_a_line("no gradient 'l2_int'; did you mean 'l2_init'"):
        make("gradients", f"{name}(inner=(l2, l2_int))")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("l2_int", "no gradient 'l2_int'; did you mean 'l2_init'"),
        ("(l2_init, l2_int)", "no gradient 'l2_int'; did you mean 'l2_init'"),
        ("(l2_init(strengh=1),)", "no field of l2_init 'strengh'; did you mean 'strength'"),
        ("(l2_init(strength='a'),)", "l2_init: strength is 'a'; it must be: float"),
        ("l2_init(strength=-1)", "l2_init: strength is -1.0; it must be 0 or more"),
        ("(l2_init, 5)", "'5' is not a name with fields"),
        ("None", "no gradient 'None'"),
        ("inject", "no gradient 'inject'"),
        ("(trac, trac)", "stands among the terms more than once"),
        ("l2_init(0.1)", "give fields by name"),
        ("(l2_init", "cannot be read as a name with fields"),
        ("lambda: 0", "is not a name with fields"),
    ],
)
def test_terms_that_cannot_be_read_are_refused_in_a_line(field, message):
    with refused_in_a_line(message):
        make("agents", f"double_dqn(gradient={field})")


def test_an_unknown_field_is_named_before_what_stands_in_it():
    with refused_in_a_line("no field of double_dqn 'gradiant'; did you mean 'gradient'"):
        make("agents", "double_dqn(gradiant=l2_init)")


@pytest.mark.parametrize("given", [None, 5, Inject(), (L2Init(), Inject()), L2Init, ("l2_init",)])
def test_what_is_no_term_is_refused_in_a_line(given):
    with refused_in_a_line("it must be made of gradients, such as l2()"):
        Several(inner=given)


@pytest.mark.parametrize("name", sorted(members("gradients")))
def test_every_field_is_one_that_the_grammar_can_write(name):
    member = members("gradients")[name]
    assert dataclasses.is_dataclass(member)
    assert set(field_types(member)) == {field.name for field in dataclasses.fields(member)}
    assert member().acts_on in ("gradient", "update")
