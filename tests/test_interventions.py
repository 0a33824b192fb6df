"""The contract, for every agent × every intervention."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import DQN, PIXELS, POLICY, SOFT
from trees import bit_equal, distance

from regrow.environments import Breakout, Reach, Shades
from regrow.errors import RegrowError
from regrow.interventions import (
    ContinualBackprop,
    Deaden,
    FitNoise,
    Inject,
    Nothing,
    Prime,
    Redo,
    Regrama,
    Reset,
    ResetOptimizer,
    SelfNormalizedReset,
    ShrinkPerturb,
    Widen,
)
from regrow.learners.learner import Learner, learners
from regrow.learners.optimizer import Optimizer
from regrow.networks.network import mlp
from regrow.registry import describe, field_types, make, members
from regrow.training.checkpoint import load, save
from regrow.training.device_loop import scan_updates
from regrow.training.run import Run, _intervened, abstract_state

KEY = jax.random.key(11)
SHORT = {
    FitNoise: {"rounds": 2, "updates": 5, "transitions": 50},
    Prime: {"updates": 10, "transitions": 20},
    Deaden: {"share": 0.5},
    # Thresholds at which a network this young has units to recycle.
    Redo: {"tau": 0.9},
    Regrama: {"tau": 0.9},
    # They act at the second update after they were installed.
    ContinualBackprop: {"rate": 0.5, "maturity": 1},
    SelfNormalizedReset: {"limit": 2, "period": 2},
}
# Every agent small, and where it acts.
AGENTS = {
    "double_dqn": (DQN, Breakout()),
    "sac": (SOFT, Reach()),
    "drq": (PIXELS, Shades()),
    "ppo": (POLICY, Reach()),
}

EVERY = [cls(**SHORT.get(cls, {})) for cls in members("interventions").values()]
VARIANTS = [
    Inject(split=0),
    Inject(split=2),
    Inject(subtract=False),
    Inject(freeze=False),
    Inject(optimizer="keep"),
    Inject(optimizer="reset_all"),
    Reset("last"),
    Reset("everything"),
    Reset("head", "keep"),
    ResetOptimizer("head"),
    ShrinkPerturb(noise="normal", perturb=0.01, target="copy"),
    ShrinkPerturb(**ShrinkPerturb.sr_spr, optimizer="reset"),
    FitNoise(**SHORT[FitNoise], redraw=False),
]
# What treats some Learners only: others have layer normalisation, or one layer that could be dead.
PARTLY = {
    ("drq", Widen): Widen(only="encoder critic critic_2"),
    ("drq", Deaden): Deaden(share=0.5, only="critic critic_2"),
}
# Every agent with every intervention; what fields do, they do alike for all agents.
CASES = [
    *((agent, one) for agent in AGENTS for one in EVERY if (agent, type(one)) not in PARTLY),
    *((agent, one) for (agent, _), one in PARTLY.items()),
    *(("double_dqn", one) for one in VARIANTS),
]


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow if name == "drq" else ())
        for name in sorted(members("agents"))
    ]
)
def trained(request) -> Run:
    assert request.param in AGENTS, f"give the contract test a small {request.param}"
    return run_of(request.param)


@functools.cache
def run_of(name: str) -> Run:
    """Trained once: a fixture of a wider scope is made anew for every row of a table."""
    agent, environment = AGENTS[name]
    return Run.start(agent, environment, seed=0).advance(400)[0]


def trees(run: Run):
    return [jax.tree.structure(one.statistics) for one in learners(run.state.agent).values()]


def outputs(run: Run):
    inputs = run.agent.inputs(run.state.agent, run.state.replay.first(32))
    return [
        _outputs(net, inputs[name])
        for name, learner in learners(run.state.agent).items()
        for net in (learner.network, learner.target)
        if net is not None
    ]


def counts(learner):
    return [int(state[0].count) for state in learner.statistics]


def before_and_after(trained, intervention):
    """Every Learner as it was and as it is after the intervention."""
    changed = trained.intervene(intervention)
    pairs = learners(trained.state.agent), learners(changed.state.agent)
    return zip(*(each.values() for each in pairs), strict=True)


@functools.partial(jax.jit, static_argnames="agent")
def three_updates_later(state, replay, agent):
    return scan_updates(state, replay, jax.random.split(KEY, 3), agent)


@eqx.filter_jit
def _outputs(network, obs):
    return jax.vmap(network)(obs)


def marked(agent, one):
    """What takes long to compile and is much like the rest runs under `make test-all`."""
    alike = agent != "double_dqn" or one in VARIANTS[4:]
    some = (Inject,) if agent == "drq" else (Nothing, Inject, Reset)
    quick = not alike or type(one) in some
    marks = () if quick else pytest.mark.slow
    return pytest.param(agent, one, id=f"{agent}-{describe(one)}", marks=marks)


@pytest.mark.parametrize(
    ("trained", "intervention"),
    [marked(agent, one) for agent, one in CASES],
    indirect=["trained"],
)
class TestContract:
    def test_the_output_is_kept_bit_for_bit_if_declared(self, trained, intervention):
        kept = bit_equal(outputs(trained), outputs(trained.intervene(intervention)))
        assert kept == intervention.keeps_output

    def test_the_optimizer_tree_is_as_declared(self, trained, intervention):
        same = trees(trained) == trees(trained.intervene(intervention))
        assert same == intervention.keeps_optimizer_tree

    def test_frozen_leaves_are_still_and_live_ones_move(self, trained, intervention):
        before = trained.intervene(intervention).state.agent
        after = three_updates_later(before, trained.state.replay, trained.agent)
        for old, new in zip(learners(before).values(), learners(after).values(), strict=True):
            live = old.network.trainable()
            still, moving = (eqx.filter(old.network, live, inverse=i) for i in (True, False))
            assert bit_equal(still, eqx.filter(new.network, live, inverse=True))
            moved = eqx.filter(new.network, live)
            for a, b in zip(moving.parts(), moved.parts(), strict=True):
                assert distance(a, b) > 1e-5

    def test_one_key_one_result_two_keys_two_all_in_one_trace(self, trained, intervention):
        state, traces = trained.state, _intervened._cache_size()
        a, b, c = (
            _intervened(state.agent, state.replay, key, intervention, trained.agent)
            for key in (KEY, KEY, jax.random.key(12))
        )
        assert _intervened._cache_size() <= traces + 1
        assert bit_equal(a, b)
        assert bit_equal(a, c) != intervention.is_random

    def test_it_is_saved_with_its_run(self, trained, intervention, tmp_path):
        run = trained.intervene(intervention)
        save(run, tmp_path / "run.ckpt")
        loaded = load(tmp_path / "run.ckpt")
        assert bit_equal(loaded.state, run.state)
        assert loaded.history[-1].intervention == describe(intervention)

    def test_its_printed_form_makes_it_again(self, trained, intervention):
        assert make("interventions", describe(intervention)) == intervention


@pytest.mark.parametrize("trained", ["double_dqn"], indirect=True)
@pytest.mark.parametrize(
    "first",
    [
        Inject(),
        pytest.param(Redo(tau=0.9), marks=pytest.mark.slow),
        Widen(),
        pytest.param(ContinualBackprop(), marks=pytest.mark.slow),
    ],
    ids=describe,
)
@pytest.mark.parametrize("name", sorted(members("interventions")))
def test_they_can_follow_each_other(trained, first, name):
    cls = members("interventions")[name]
    both = [first, cls(**SHORT.get(cls, {}))]
    state = abstract_state(trained.agent, trained.environment, both)
    inputs = trained.agent.inputs(trained.state.agent, trained.state.replay.first(4))
    for name_of_learner, learner in learners(state.agent).items():

        def step(learner, seen=inputs[name_of_learner]):
            learner = learner.descend(jax.tree.map(jnp.ones_like, learner.network))
            return learner.after_hooks(seen, KEY)

        # As it has to be in a compiled loop, hooks included.
        stepped = eqx.filter_eval_shape(step, learner)
        assert jax.tree.structure(stepped) == jax.tree.structure(learner)
        for leaf, same in zip(jax.tree.leaves(stepped), jax.tree.leaves(learner), strict=True):
            assert (leaf.shape, leaf.dtype) == (same.shape, same.dtype)


def test_only_the_learner_that_is_named_is_treated(trained):
    names = list(learners(trained.state.agent))
    for only in names:
        pairs = before_and_after(trained, ShrinkPerturb(only=only))
        treated = [not bit_equal(old, new) for old, new in pairs]
        assert treated == [name == only for name in names]


REFUSED = {
    "crelu": {"deaden"},
    "simba": {
        *("continual_backprop", "deaden", "redo"),
        *("regrama", "self_normalized_reset", "widen"),
    },
}


@pytest.mark.parametrize(
    ("style", "fields"), [("crelu", {"activation": "crelu"}), ("simba", {"block": "simba"})]
)
def test_other_architectures_are_treated_or_refused(style, fields):
    agent, environment = dataclasses.replace(DQN, **fields), Breakout()
    refused = set()
    for name, cls in members("interventions").items():
        try:
            state = abstract_state(agent, environment, [cls(**SHORT.get(cls, {}))])
        except RegrowError:
            refused.add(name)
            continue
        for learner in learners(state.agent).values():
            stepped = eqx.filter_eval_shape(
                lambda learner: learner.descend(jax.tree.map(jnp.ones_like, learner.network)),
                learner,
            )
            assert jax.tree.structure(stepped) == jax.tree.structure(learner)
    assert refused == REFUSED[style]


def test_injection_gives_the_target_the_same_fresh_head(trained):
    with_target = 0
    for own, learner in before_and_after(trained, Inject()):
        if learner.target is not None and own.network.head:
            assert bit_equal(learner.network.head, learner.target.head)
            assert bit_equal(learner.network.residual[-1].copy, learner.target.residual[-1].copy)
            assert bit_equal(learner.target.residual[-1].old.layers, own.target.head)
            assert distance(own.target.head, own.network.head) > 0
            with_target += 1
    targets = [one.target for one in learners(trained.state.agent).values()]
    assert with_target == sum(target is not None and target.head != () for target in targets)


@pytest.mark.parametrize(
    ("injection", "fresh"),
    [(Inject(), "head"), (Inject(optimizer="keep"), ""), (Inject(optimizer="reset_all"), "all")],
)
def test_which_statistics_an_injection_starts_anew(trained, injection, fresh):
    """By default those of the new head, and no other: moments and count stay bit for bit."""
    for old, new in before_and_after(trained, injection):
        start = {"head": old.network.split, "": len(old.statistics), "all": 0}[fresh]
        if not old.network.head:
            start = len(old.statistics)  # all encoder: left as it is
        assert counts(old)[0] > 0
        assert bit_equal(new.statistics[:start], old.statistics[:start])
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(new.statistics[start:]))


SILENT, LOUD = 1_000, 20


@pytest.mark.parametrize("optimizer", [None, "reset", "keep"])
def test_the_first_step_of_a_new_head_is_the_learning_rate(optimizer):
    """With a state of its own; with that of a head gone silent Adam's formula says 2.5 times.

    m = (1 − b₁)g and v = (1 − b₂)g² over the corrections of an old head's count, in place of g and
    g²: its moments have died away.
    """
    learner = Learner.create(mlp(3, (8,), 2, key=KEY), Optimizer(learning_rate=1e-3), target=False)
    loud = jax.tree.map(jnp.ones_like, learner.network)
    silent = loud.with_parts([loud.layers[0], jax.tree.map(jnp.zeros_like, loud.layers[1])])
    for gradient, updates in ((loud, LOUD), (silent, SILENT)):
        gradient = jax.tree.map(lambda leaf: 1e-3 * leaf, gradient)
        learner = jax.lax.fori_loop(0, updates, lambda _, it, g=gradient: it.descend(g), learner)
    injection = Inject() if optimizer is None else Inject(optimizer=optimizer)
    injected = injection.change(learner, KEY)
    assert bit_equal(injected.statistics[0], learner.statistics[0])
    gradient = jax.tree.map(jnp.ones_like, injected.network)
    stepped = injected.descend(gradient)
    step = jax.tree.map(
        lambda new, old: np.abs(new - old) / 1e-3, stepped.network.head, injected.network.head
    )
    t, v = SILENT + LOUD, 1e-6 * (0.999**SILENT - 0.999 ** (SILENT + LOUD))
    silenced = 0.1 / (1 - 0.9**t) / np.sqrt((0.999 * v + 0.001) / (1 - 0.999 ** (t + 1)))
    expected = silenced if optimizer == "keep" else 1.0
    for leaf in jax.tree.leaves(step):
        np.testing.assert_allclose(leaf, expected, rtol=2e-3)
    assert (2.4 < expected < 2.6) == (optimizer == "keep")


@pytest.mark.parametrize("where", ["last", "head", "everything"])
def test_a_reset_draws_what_it_names_and_no_more(trained, where):
    for old, new in before_and_after(trained, Reset(where)):
        split, layers = old.network.split, old.network.layers
        start = {"last": max(split, len(layers) - 1), "head": split, "everything": 0}[where]
        assert counts(new) == [*counts(old)[:start], *[0] * (len(layers) - start)]
        for i, (layer, before) in enumerate(zip(new.network.layers, layers, strict=True)):
            assert bit_equal(layer, before) == (i < start)
        # A copy, unless all of it is encoder.
        target = old.target if start == len(layers) else new.network
        assert new.target is None or bit_equal(new.target, target)


def test_a_reset_ends_earlier_injections(trained):
    run = trained.intervene(Inject()).intervene(Inject(freeze=False)).intervene(Reset())
    assert all(one.network.residual == () for one in learners(run.state.agent).values())
    assert trees(run) == trees(trained)


def test_resetting_the_optimizer_leaves_the_parameters(trained):
    for old, new in before_and_after(trained, ResetOptimizer()):
        assert bit_equal((new.network, new.target), (old.network, old.target))
        assert not any(counts(new))
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(new.statistics))


class Tape:
    """An agent that keeps what it was asked to learn from."""

    rows_per_update = 8

    def __init__(self, count: int):
        self.count = count

    def update(self, state, batch, key):
        i, rewards, discounts, actions = state
        return (
            i + 1,
            rewards.at[i].set(batch.reward),
            discounts.at[i].set(batch.discount),
            actions.at[i].set(batch.action),
        )

    def inputs(self, state, batch):
        raise AssertionError("not asked for")

    gradients = inputs

    def empty(self):
        return (jnp.array(0), *(jnp.zeros((self.count, 8), d) for d in (float, float, int)))


@pytest.mark.parametrize("redraw", [True, False])
def test_fit_noise_draws_rewards_anew_each_round_or_never(trained, redraw):
    tape = Tape(60)
    fit = FitNoise(rounds=3, updates=20, transitions=10, redraw=redraw)
    replay = trained.state.replay
    numbered = eqx.tree_at(
        lambda r: r.storage.action, replay, jnp.arange(replay.capacity, dtype=jnp.int32)
    )
    count, rewards, discounts, actions = fit(tape.empty(), agent=tape, experience=numbered, key=KEY)
    assert int(count) == 60
    assert not np.asarray(discounts).any()  # every one of them terminal
    rounds = np.asarray(rewards).reshape(3, -1), np.asarray(actions).reshape(3, -1)
    of = [dict(zip(a.tolist(), r.tolist(), strict=True)) for r, a in zip(*rounds, strict=True)]
    assert all(len(set(one.values())) > 5 for one in of)  # one reward per transition
    for action in set(of[0]) & set(of[1]) & set(of[2]):
        drawn = {one[action] for one in of}
        assert len(drawn) == (3 if redraw else 1)


def test_prime_uses_the_oldest_transitions(trained):
    tape = Tape(40)
    replay = trained.state.replay
    numbered = eqx.tree_at(
        lambda r: r.storage.action, replay, jnp.arange(replay.capacity, dtype=jnp.int32)
    )
    prime = Prime(updates=40, transitions=15)
    _, rewards, _, actions = prime(tape.empty(), agent=tape, experience=numbered, key=KEY)
    oldest = numbered.first(15)
    assert set(np.asarray(actions).ravel().tolist()) == set(oldest.action.tolist())
    by_action = dict(zip(oldest.action.tolist(), oldest.reward.tolist(), strict=True))
    assert [by_action[a] for a in np.asarray(actions).ravel().tolist()] == np.asarray(
        rewards
    ).ravel().tolist()


@pytest.mark.parametrize("name", sorted(members("interventions")))
def test_every_field_is_one_that_the_grammar_can_write(name):
    member = members("interventions")[name]
    assert dataclasses.is_dataclass(member)
    assert set(field_types(member)) == {field.name for field in dataclasses.fields(member)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("injekt", "no intervention 'injekt'; did you mean 'inject'"),
        ("inject(splitt=1)", "no field of inject 'splitt'; did you mean 'split'"),
        ("inject(split=-1)", "split is -1; it must be 0 or more"),
        ("inject(split='a')", "split is 'a'; it must be: int or None"),
        ("reset(where='tail')", "where is 'tail'; it must be one of: head, last, everything"),
        ("fit_noise(rounds=0)", "rounds is 0; it must be at least 1"),
        ("fit_noise(redraw=1)", "redraw is 1; it must be: bool"),
        ("prime(updates=-5)", "updates is -5"),
        ("deaden(share=0.0)", "share is 0.0; it must be in (0, 1]"),
        ("deaden(layer=-1)", "layer is -1; it must be 0 or more"),
    ],
)
def test_what_cannot_be_is_refused(text, message):
    with pytest.raises(RegrowError, match=message.replace("(", r"\(")):
        make("interventions", text)
