"""Probes of PyTorch modules: the numbers of the same networks in JAX, and what they refuse."""

import copy
import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from in_torch import as_module, channels_first, head_of, moved, tensor
from probing import KEY, PARTS, Regression, killed, learns, rewards, small, values
from torch import nn

from regrow.errors import RegrowError
from regrow.registry import make, members
from regrow.torch import inject, measure
from regrow.torch.catalogue import PROBES
from regrow.torch.layers import connections
from regrow.training.probing import every_probe

# Against JAX.

OPTIONS = (
    "dead_units(part='head', threshold=0.4)",
    "dead_by_firing(part='encoder', tau=0.55)",
    "dormant_units(part='head', tau=0.8)",
    "dead_overlap(part='head', tau=0.9)",
    "gradient_dormancy(part='encoder', tau=0.9)",
    "gradient_dormancy(part='head', tau=0.6)",
    "srank(delta=0.3)",
    "approximate_rank(delta=0.3)",
    "feature_rank(epsilon=0.3)",
    "gradient_cosine(samples=4)",
    "ntk_rank(samples=6, threshold=0.1)",
    "curvature(iterations=200)",
    "trainability(updates=6)",
)
OF_NORMS = (
    *OPTIONS[3:6],
    "dead_units",
    "weight_norm(part='encoder')",
    "weight_change",
    "gradient_norm",
    "effective_rank",
)
SLOW = ("curvature.network", "trainability.network")  # with their defaults
CASES = [(kind, norm) for norm in (False, True) for kind in ("mlp", "conv")]


def losses_of(x: torch.Tensor):
    """Those of `probing.Regression`."""

    def losses(module):
        outputs = module(x)
        goals = tensor(rewards(x)).float()[:, None] * torch.arange(1.0, outputs.shape[1] + 1)
        return (outputs - goals).square().sum(dim=1) / 2

    return losses


def as_probe(text: str):
    every = every_probe(costly=True)
    return every[text] if text in every else make("probes", text)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def both(request):
    """What is measured of a network in JAX and in PyTorch, by the probe's text."""
    kind, norm = request.param
    network, x = small(kind, layer_norm=norm, count=20)
    network = moved(network, 0.1, 0) if norm else killed(network, 1, [0, 3])
    before, rate = moved(network, 0.3, 1), 0.05
    every = [name for name in every_probe(costly=True) if name not in SLOW]
    asked = {text: as_probe(text) for text in (OF_NORMS if norm else [*every, *OPTIONS])}
    agent = Regression(rows_per_update=100)
    ours = values(asked.values(), learns(network, rate), x, before=learns(before), agent=agent)
    module, earlier, x = as_module(network), as_module(before), channels_first(x)
    noise = tensor(jax.random.normal(KEY, (20, 2)))
    with pytest.MonkeyPatch.context() as patch:
        drawn = torch.randn
        same = lambda shape, **how: noise if tuple(shape) == (20, 2) else drawn(shape, **how)  # noqa: E731
        patch.setattr(torch, "randn", same)
        theirs = measure(
            module,
            x,
            at=head_of(module),
            probes=list(asked),
            loss=losses_of(x),
            optimizer=torch.optim.Adam(module.parameters(), lr=rate, eps=1e-5),
            initial=earlier,
            previous=earlier.state_dict(),
        )
    return dict(zip(asked, ours, strict=True)), theirs


def test_every_probe_gives_the_number_that_it_gives_in_jax(both):
    ours, theirs = both
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, rel=2e-3, abs=1e-5, nan_ok=True), name
    assert sum(np.isnan(value) for value in ours.values()) <= 2  # no unit was dormant
    assert len(set(ours.values())) > len(ours) / 2


def test_all_probes_are_there_with_their_options_and_costs():
    theirs = members("probes")
    assert PROBES.keys() == theirs.keys()
    for name, probe in PROBES.items():
        fields = {one.name: one.default for one in dataclasses.fields(theirs[name])}
        assert ("part" in fields) == probe.parts
        fields.pop("part", None)
        assert {n: one.default for n, one in probe.fields.items()} == fields
        assert theirs[name].costly == probe.costly


def test_no_jax_is_needed():
    code = "import sys, regrow.torch; sys.exit('jax' in sys.modules or 'jaxtyping' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Branches and what stands between layers.


class Dueling(nn.Module):
    """Two streams that read one trunk, with functional activations."""

    def __init__(self):
        super().__init__()
        self.trunk, self.value, self.v = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 1)
        self.advantage, self.a = nn.Linear(8, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = torch.relu(self.trunk(x))
        v, a = self.v(torch.relu(self.value(h))), self.a(torch.tanh(self.advantage(h)))
        return v + a - a.mean(dim=1, keepdim=True)


class Actor(nn.Module):
    """Means and deviations of one trunk."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU())
        self.mu, self.log_std = nn.Linear(7, 2), nn.Linear(7, 2)

    def forward(self, x):
        h = self.trunk(x)
        return self.mu(h), self.log_std(h)


class Critic(nn.Module):
    """Reads what a trunk makes of observations together with actions."""

    def __init__(self):
        super().__init__()
        self.trunk, self.joint, self.q = nn.Linear(4, 6), nn.Linear(8, 5), nn.Linear(5, 1)

    def forward(self, x, action):
        h = torch.cat([torch.relu(self.trunk(x)), action], dim=1)
        return self.q(torch.relu(self.joint(h)))


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(32, 4)


def share_of_zeros(*hidden: torch.Tensor) -> float:
    dead = torch.cat([(one == 0).all(dim=0) for one in hidden])
    return dead.float().mean().item()


def kill(layer: nn.Module, *units: int) -> None:
    with torch.no_grad():
        layer.bias[list(units)] = -100.0


def names(layers) -> list[str]:
    return [layer.name for layer in layers]


def test_streams_that_read_one_trunk(x):
    net = Dueling()
    kill(net.trunk, 0, 1)
    kill(net.value, 2)
    found = measure(net, x, at=["value > v", "advantage > a"])
    assert found["dead_units.encoder"] == 0.25
    h = torch.relu(net.trunk(x))
    streams = [torch.relu(net.value(h)), torch.tanh(net.advantage(h))]
    assert found["dead_units.head"] == pytest.approx(share_of_zeros(*streams))
    expected = torch.cat(streams, dim=1).norm(dim=1).mean().item()
    assert found["feature_norm.head"] == pytest.approx(expected)
    assert found["feature_norm.encoder"] == pytest.approx(h.norm(dim=1).mean().item())
    traced = connections(net, x)
    assert names(traced.hidden) == ["trunk", "value", "advantage"]
    assert names(traced.ends) == ["v", "a"]
    assert names(traced.followers("trunk")) == ["value", "advantage"]


def test_two_ends_read_the_same_features(x):
    net = Actor()
    kill(net.trunk[0], 0)
    found = measure(net, x, at="trunk.2 > mu, log_std")
    assert found["feature_norm.head"] == pytest.approx(net.trunk(x).norm(dim=1).mean().item())
    assert found["dead_units.encoder"] >= 1 / 8
    weights = torch.cat(
        [p.flatten() for m in (net.trunk[2], net.mu, net.log_std) for p in m.parameters()]
    )
    assert found["weight_norm.head"] == pytest.approx(weights.norm().item())
    alone = measure(net, x, at=["mu", "log_std"])
    assert np.isnan(alone["dead_units.head"])  # the outputs are no units
    assert alone["dead_units.encoder"] == pytest.approx(
        share_of_zeros(torch.relu(net.trunk[0](x)), net.trunk(x))
    )


def test_of_what_is_joined_each_has_its_own_units(x):
    net, action = Critic(), torch.zeros(32, 2)  # no unit is an action
    kill(net.trunk, 0, 1, 2)
    found = measure(net, (x, action), at="joint > q")
    assert found["dead_units.encoder"] == 0.5
    trunk = torch.relu(net.trunk(x))
    assert found["feature_norm.encoder"] == pytest.approx(trunk.norm(dim=1).mean().item())


def test_a_unit_of_two_features_is_read_in_both(x):
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(6, 1)

        def forward(self, x):
            h = self.a(x)
            return self.b(torch.cat([torch.relu(h), torch.relu(-h)], dim=1))

    net = Doubled()
    kill(net.a, 0)  # its other half fires
    with torch.no_grad():
        net.a.weight[1], net.a.bias[1] = 0.0, 0.0
    assert measure(net, x, at="b")["dead_units.encoder"] == pytest.approx(1 / 3)


def test_channels_are_units_however_they_are_flattened():
    class Turned(nn.Module):
        def __init__(self, turned):
            super().__init__()
            self.conv, self.out, self.turned = nn.Conv2d(1, 4, 3), nn.Linear(24, 2), turned

        def forward(self, x):
            h = torch.relu_(self.conv(x))
            return self.out((h.permute(0, 2, 3, 1) if self.turned else h).reshape(len(x), -1))

    torch.manual_seed(0)
    image = torch.randn(8, 1, 4, 5)
    for turned in (False, True):
        net = Turned(turned)
        kill(net.conv, 1)
        assert measure(net, image, at="out")["dead_units.encoder"] == 0.25
    pooled = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(4, 3, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 2),
    )
    kill(pooled[0], 1)
    kill(pooled[3], 0, 2)
    assert measure(pooled, image, at="3")["dead_units.encoder"] == 0.25
    assert measure(pooled, image, at="3")["dead_units.head"] == pytest.approx(2 / 3)


def test_other_layers_have_units_too(x):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.word, self.lstm, self.out = (
                nn.Embedding(9, 3),
                nn.LSTM(3, 5, batch_first=True),
                nn.Linear(5, 2),
            )

        def forward(self, tokens):
            return self.out(self.lstm(self.word(tokens))[0][:, -1])

    net, tokens = Recurrent(), torch.randint(9, (16, 7))
    with torch.no_grad():
        net.word.weight[:, 1] = 0.0
    traced = connections(net, tokens)
    assert names(traced.hidden) == ["word", "lstm"]
    assert [traced.sizes(layer).shape for layer in traced.hidden] == [(112, 3), (16, 5)]
    loss = lambda m: m(tokens)[:, 0]  # noqa: E731
    found = measure(net, tokens, at="lstm > out", loss=loss, costly=True)
    assert found["dead_units.encoder"] == pytest.approx(1 / 3)
    assert found["gradient_dormancy.head"] < 1


def test_a_module_that_is_changed_in_place_is_read_before_its_activation(x):
    """The gradient is for the pre-activation, which ReLU overwrites here."""
    torch.manual_seed(1)
    nets = [
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=way), nn.Linear(6, 1))
        for way in (True, False)
    ]
    nets[1].load_state_dict(nets[0].state_dict())
    z = nets[0][0](x)
    score = ((z > 0) * nets[0][2].weight).abs().mean(dim=0)
    expected = (score <= 0.8 * score.mean()).float().mean().item()

    def twice(module):  # of the second call nothing is learned, the third adds to the first
        with torch.no_grad():
            known = module(x[:5]).sum()
        return (module(x) + module(x) / 2 - known)[:, 0]

    for loss in (lambda m: m(x)[:, 0], twice):
        found = measure(
            nets[0], x, at="2", probes=["gradient_dormancy.encoder(tau=0.8)"], loss=loss
        )
        assert list(found.values()) == pytest.approx([expected])
    for net in nets:
        found = measure(
            net, x, at="2", probes=["gradient_dormancy.encoder(tau=0.8)"], loss=lambda m: m(x)[:, 0]
        )
        assert list(found.values()) == pytest.approx([expected])
    assert 0 < expected < 1


# Frozen heads.


def test_frozen_heads_are_not_measured_but_heard(x):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    asked = {"loss": lambda m: (m(x) - 1).square().sum(dim=1), "optimizer": optimizer}
    before = measure(net, x, at="2", costly=True, **asked)
    old = copy.deepcopy(net)
    inject(net, "2", optimizer=optimizer, seed=3)
    plain = copy.deepcopy(net)
    after = measure(net, x, at="2", costly=True, **asked, previous=old, initial=old.state_dict())
    live = nn.Sequential(*[copy.deepcopy(one) for one in plain])
    alone = measure(live, x, at="2")
    for name, value in alone.items():
        assert after[name] == value, name
    assert after["weight_norm.head"] != before["weight_norm.head"]
    assert after["dead_units.encoder"] == before["dead_units.encoder"]
    # The loss is of the whole output, and so is its gradient for the encoder.
    assert after["gradient_norm.encoder"] == pytest.approx(
        before["gradient_norm.encoder"], rel=1e-4
    )
    assert after["distance_from_init.encoder"] == 0 < after["distance_from_init.head"]
    traced = connections(net, x)
    frozen = [layer.name for layer in traced.followers("0") if layer.frozen]
    assert len(frozen) == 2
    assert names(traced.hidden) == ["0", "2"]
    assert names(traced.live) == ["0", "2", "4"]


@pytest.mark.parametrize("at", ["trunk.2 > mu, log_std", ["mu", "log_std"]])
def test_heads_that_are_injected_by_module(x, at):
    net = Actor()
    before = measure(net, x, at=at)
    inject(net, at, seed=0)
    after = measure(net, x, at=at, probes=list(before))
    assert after["weight_norm.encoder"] == before["weight_norm.encoder"]
    assert after["weight_norm.head"] != before["weight_norm.head"]
    assert names(connections(net, x).live) == ["trunk.0", "trunk.2", "mu", "log_std"]
    loss = lambda m: (m(x)[0] - 1).square().sum(dim=1)  # noqa: E731
    found = measure(net, x, at=at, probes=["gradient_dormancy.encoder"], loss=loss)
    assert 0 <= found["gradient_dormancy.encoder"] < 1


# What is not there, and what is refused.


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def squares(x):
    return lambda module: (module(x) - 1).square().sum(dim=1)


def test_a_part_that_is_not_there_is_nan(x):
    net = two_layers()
    everything = {
        "loss": squares(x),
        "optimizer": torch.optim.SGD(net.parameters(), 0.1),
        "initial": net,
        "previous": net,
        "costly": True,
    }
    whole = measure(net, x, at=None, **everything)
    same = measure(net, x, at="0", **everything)
    assert whole.keys() == same.keys()
    for name, value in whole.items():
        assert np.isnan(value) == (name.endswith(".encoder") or name == "dead_overlap.head")
        assert same[name] == pytest.approx(value, nan_ok=True)
    last = measure(net, x, at="2", **everything)
    for name in (
        "dead_units",
        "dormant_units",
        "dead_by_firing",
        "gradient_dormancy",
        "dead_overlap",
    ):
        assert np.isnan(last[f"{name}.head"])
    assert np.isfinite(last["srank.head"])
    assert np.isnan(measure(nn.Linear(4, 2), x, at=None)["srank.head"])


def test_numbers_that_are_not_finite_are_nan(x):
    net = two_layers()
    with torch.no_grad():
        net[0].weight[0, 0] = 3e38
        net[2].weight[0] = 3e38
    found = measure(net, x, at="2", loss=squares(x), costly=True)
    assert len(found) > 20
    assert all(np.isnan(value) for value in found.values())


def test_another_architecture_is_no_past(x):
    net = two_layers()
    others = (
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
        nn.Sequential(*two_layers(), nn.Linear(3, 3)),
        nn.Sequential(nn.Linear(4, 5)),
    )
    for other in others:
        found = measure(net, x, at="2", previous=other.state_dict(), initial=other)
        for name in ("weight_change", "dead_overlap", "distance_from_init"):
            assert np.isnan([found[f"{name}.{part}"] for part in PARTS]).all()


def test_without_what_it_needs_a_probe_is_left_out_or_says_what_it_needs(x):
    net = two_layers()
    plain = measure(net, x, at="2")
    assert {name.partition(".")[0] for name in plain} == {
        name for name, probe in PROBES.items() if not probe.needs
    }
    for text, what in (
        ("gradient_norm", "loss="),
        ("gradient_cosine", "loss=, a function of the module that returns a loss for every sample"),
        ("weight_change.encoder", "previous="),
        ("distance_from_init", "initial="),
        ("value_churn", "update="),
        ("trainability", "optimizer="),
    ):
        with pytest.raises(RegrowError, match=f"'{text}' needs {what}"):
            measure(net, x, at="2", probes=[text])
    with pytest.raises(RegrowError, match="'ntk_rank' needs forward="):
        measure(Actor(), x, at=["mu", "log_std"], probes=["ntk_rank"])
    one = measure(net, x, at="2", loss=lambda m: m(x).sum(), costly=True)
    assert one.keys() - plain.keys() == {
        "gradient_norm.encoder",
        "gradient_norm.head",
        "curvature.network",
        "ntk_rank.network",
    }
    mean = measure(
        Actor(), x, at="trunk.2 > mu, log_std", forward=lambda m, x: m(x)[0], costly=True
    )
    assert mean["ntk_rank.network"] > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dead_unit", "no probe 'dead_unit'; did you mean 'dead_units'?"),
        ("dead_units(tau=1)", "no field of dead_units 'tau'"),
        ("dead_units.body", "part is 'body'; for dead_units it must be 'encoder' or 'head'"),
        ("policy_churn.head", "part is 'head'; for policy_churn it must be 'network'"),
        ("dead_units(threshold=2)", "threshold is 2; it must be between 0 and 1"),
        ("gradient_cosine(samples=1)", "samples is 1; it must be at least 2"),
        ("trainability(updates=0.5)", "updates is 0.5; it must be at least 1"),
        ("srank(delta='x')", "delta is 'x'; it must be between 0 and 1"),
        ("dormant_units(0.1)", "fields are written with their names"),
        ("dormant_units(tau)", "fields are written with their names"),
        ("dormant_units(tau=)", "fields are written as in Python"),
        ("dormant_units(tau=mine)", "fields are written as in Python"),
        ("dead units", "'dead units' is not a name"),
    ],
)
def test_names_and_options_are_checked(x, text, message):
    with pytest.raises(RegrowError) as error:
        measure(two_layers(), x, at="2", probes=[text])
    assert message in str(error.value)


def test_a_loss_or_update_that_is_none_is_refused(x):
    net, other = two_layers(), two_layers()
    for loss, message in (
        (lambda m: m(x), r"loss returned a tensor of shape \(32, 3\)"),
        (lambda m: 0.0, "loss returned float; it must return a tensor"),
        (lambda m: m(x).detach().sum(), "the loss does not depend on the module's parameters"),
        (lambda m: other(x).sum(), "the loss does not depend on the module's parameters"),
    ):
        with pytest.raises(RegrowError, match=message):
            measure(net, x, at="2", loss=loss)
    twice = lambda m: m(torch.cat([x, x]))[:32].sum(dim=1)  # noqa: E731
    with pytest.raises(RegrowError, match="'0' was called on 64 rows for 32 losses"):
        measure(net, x, at="2", loss=twice, probes=["gradient_dormancy.encoder"])

    def wrong(_):
        with torch.no_grad():
            net[0].weight += 1

    with pytest.raises(RegrowError, match="update changed the module that is measured"):
        measure(net, x, at="2", update=wrong, probes=["value_churn"])
    with pytest.raises(RegrowError, match="count is 1; churn needs at least 2 samples"):
        measure(net, x[:1], at="2", update=lambda m: None, probes=["value_churn"])
    with pytest.raises(RegrowError, match="no module 'out'"):
        measure(net, x, at="out")
    with pytest.raises(RegrowError, match="ReLU called no layer on the inputs"):
        measure(nn.ReLU(), x, at=None)


def test_a_module_that_cannot_be_copied_is_measured_all_the_same(x):
    net = two_layers()
    net.last = net(x)  # as distributions are kept by policies
    assert "dead_units.head" in measure(net, x, at="2", loss=squares(x), previous=two_layers())
    with pytest.raises(RegrowError, match="Sequential cannot be copied"):
        measure(net, x, at="2", update=lambda m: None, probes=["value_churn"])


# What is left as it was.


def test_measuring_changes_nothing(x):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3)
    )
    net[3].eval()
    net[0].weight.requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters())
    squares(x)(net).mean().backward()
    optimizer.step()
    held = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    gradients = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    random = torch.get_rng_state()
    given = {"loss": squares(x), "optimizer": optimizer, "previous": two_layers(), "initial": net}
    first, second = (measure(net, x, at="4", costly=True, **given) for _ in range(2))
    assert first == pytest.approx(second, nan_ok=True)
    assert first["value_churn.network"] > 0
    assert torch.equal(torch.get_rng_state(), random)
    for was, now in zip(held, (net.state_dict(), optimizer.state_dict()), strict=True):
        torch.testing.assert_close(now, was, rtol=0, atol=0)
    assert [module.training for module in net] == [True, True, True, False, True]
    assert not net[0].weight.requires_grad
    for was, parameter in zip(gradients, net.parameters(), strict=True):
        assert (was is None) == (parameter.grad is None)
        assert was is None or torch.equal(was, parameter.grad)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]


def test_an_update_of_ones_own(x):
    net, calls = two_layers(), []

    def update(module):
        assert module is not net
        assert module.training
        calls.append(module)
        with torch.no_grad():
            module[2].bias += torch.tensor([5.0, 0.0, 0.0])

    found = measure(net, x, at="2", update=update, probes=["value_churn", "policy_churn"])
    half = net(x)[:16]
    changed = (half + torch.tensor([5.0, 0.0, 0.0])).argmax(dim=1) != half.argmax(dim=1)
    assert found["value_churn"] == pytest.approx(25 / 3, rel=1e-5)
    assert found["policy_churn"] == pytest.approx(changed.float().mean().item())
    assert len(calls) == 2


def test_curvature_of_what_is_linear_is_zero(x):
    net = nn.Linear(4, 1)
    found = measure(net, x, at=None, loss=lambda m: m(x)[:, 0], probes=["curvature"])
    assert found == {"curvature": 0.0}


# Units as they are followed.


def turned(h):
    return h.permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    "steps",
    [
        lambda h: h.flatten(1),
        lambda h: turned(h).flatten(1),
        lambda h: turned(h).contiguous().view(len(h), -1),
        lambda h: h.flatten(2).transpose(1, 2),
        lambda h: h.reshape(len(h), 1, -1).squeeze(1),
        lambda h: torch.cat([h, h * 2], dim=1).flatten(1),
        lambda h: torch.cat([torch.zeros(3, 0, 2, 3), h], dim=-3),
        lambda h: torch.cat([h.flatten(1), turned(h).flatten(1)], dim=-1),
        lambda h: torch.cat([h, h], dim=0).flatten(1),
        lambda h: h.unflatten(2, (1, 2)).flatten(1),
        lambda h: turned(h).flatten(1).unflatten(1, (6, 5)),
        lambda h: h[:, None].flatten(2).flatten(1),
        lambda h: (h + h.mean(dim=(2, 3), keepdim=True)).amax(dim=(2, 3)),
        lambda h: torch.nn.functional.max_pool2d(h, 2).flatten(1),
        lambda h: turned(turned(h).permute(0, 3, 1, 2)).flatten(2),
        lambda h: h.sigmoid_().add_(1.0).transpose(0, 1).transpose(1, 0),
    ],
)
def test_every_feature_is_known_by_its_unit(steps):
    """The output of a layer is the index of the unit; so is, by unit, what is read."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.made, self.read = nn.Conv2d(1, 5, 1), nn.LazyLinear(2)

        def forward(self, x):
            return self.read(steps(self.made(x)))

    net, image = Net(), torch.zeros(3, 1, 2, 3)
    with torch.no_grad():
        net.made.bias.copy_(torch.arange(5.0))
    net(image)
    (reading,) = connections(net, image).layers["read"].readings
    assert reading.places
    assert (
        sum(place.size for place in reading.places)
        == reading.features.shape[reading.places[0].axis]
    )
    for place in reading.places:
        units = place.by_unit(reading.features)
        assert units.shape[1] == 5
        assert (units == units[:1]).all()
        assert len(units[0].unique()) == 5
        found = place.entries(torch.arange(5) == 2, reading.features.shape[place.axis])
        assert (reading.features.movedim(place.axis, -1)[..., found] == units[0, 2]).all()


@pytest.mark.parametrize(
    "steps",
    [
        lambda h: h[:, :3],
        lambda h: h.flip(1)[:, 1:],
        lambda h: h @ torch.ones(6, 6),
        lambda h: h.view(-1, 2, 3).transpose(1, 2).flatten(1)[:, :5],
        lambda h: torch.cat([h[:, :4], h], dim=1),
        lambda h: h.chunk(2, dim=1)[0] * h.chunk(2, dim=1)[1],
    ],
)
def test_what_is_not_known_is_not_said_to_be(steps, x):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.made, self.read = nn.Linear(4, 6), nn.LazyLinear(2)

        def forward(self, x):
            return self.read(steps(self.made(x)))

    net = Net()
    net(x)
    traced = connections(net, x)
    (reading,) = traced.layers["read"].readings
    assert reading.sources == {"made"}
    assert not reading.places or reading.features.shape[1] == 6
    assert traced.sizes(traced.layers["made"]).shape == reading.features.shape
