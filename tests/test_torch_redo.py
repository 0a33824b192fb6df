"""ReDo on PyTorch modules: what it does to the same networks in JAX, and what it refuses."""

import copy
import itertools

import pytest
import torch
from in_torch import as_module, channels_first, moved
from probing import KEY, killed, learns, small
from torch import nn
from torch.nn.utils import parametrizations

from regrow.errors import RegrowError
from regrow.learners.recycling import activity, quiet, recycled
from regrow.torch import inject, redo
from regrow.torch.layers import connections

# Against JAX.


def drawing_from(fresh: nn.Module):
    """Draws the parameters of a layer as those of the layer of its shape."""

    def init(module):
        (same,) = [one for one in fresh if str(one) == str(module)]
        module.load_state_dict(same.state_dict())

    return init


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_module_becomes_what_the_network_becomes_in_jax(kind, norm):
    network, x = small(kind, layer_norm=norm, count=30)
    network = moved(network, 0.1, 0) if norm else killed(network, 0, [1])
    masks = [quiet(score, 0.6) for score in activity(network, x)]
    expected = as_module(recycled(learns(network), masks, KEY).network)
    module = as_module(network)
    how = {"tau": 0.6, "init": drawing_from(as_module(network.fresh(KEY)))}
    count = redo(module, channels_first(x), **how)
    assert count == sum(int(mask.sum()) for mask in masks) > 0
    assert all(int(mask.sum()) < len(mask) for mask in masks)
    torch.testing.assert_close(module.state_dict(), expected.state_dict(), rtol=0, atol=0)


# By itself.


def net_of(*hidden: int) -> nn.Sequential:
    torch.manual_seed(0)
    sizes, steps = [4, *hidden], list[nn.Module]()
    for reads, gives in itertools.pairwise(sizes):
        steps += [nn.Linear(reads, gives), nn.ReLU()]
    return nn.Sequential(*steps, nn.Linear(sizes[-1], 3))


def kill(layer: nn.Module, *units: int) -> None:
    with torch.no_grad():
        layer.bias[list(units)] = -100.0


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(64, 4)


def trained(net: nn.Module, x: torch.Tensor, **how) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, **how)
    for _ in range(3):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    return optimizer


def test_dead_units_are_drawn_anew_and_the_output_stays(x):
    net = net_of(8, 6)
    kill(net[0], 1, 5)
    kill(net[2], 0)
    optimizer = trained(net, x, amsgrad=True)
    before, state = copy.deepcopy(net), copy.deepcopy(optimizer.state_dict()["state"])
    parameters = list(net.parameters())
    dead = [(torch.relu(h) == 0).all(dim=0) for h in (net[0](x), net[:3](x))]
    count = redo(net, x, tau=0.0, optimizer=optimizer, seed=0)
    assert count == sum(int(one.sum()) for one in dead) >= 3
    torch.testing.assert_close(net(x), before(x), rtol=0, atol=1e-6)
    assert [p.grad is None for p in parameters] == [True] * 5 + [False]  # what did not change
    assert all(ours is theirs for ours, theirs in zip(net.parameters(), parameters, strict=True))
    # New are the rows of the dead units and, as zeros, the columns by which they are read.
    new = {
        "0.weight": dead[0][:, None].expand(8, 4),
        "0.bias": dead[0],
        "2.weight": dead[1][:, None] | dead[0][None],
        "2.bias": dead[1],
        "4.weight": dead[1].expand(3, 6),
        "4.bias": torch.zeros(3, dtype=torch.bool),
    }
    for i, (name, parameter) in enumerate(net.named_parameters()):
        was = before.state_dict()[name]
        assert torch.equal(parameter != was, new[name] & (parameter != was)), name
        held = optimizer.state_dict()["state"][i]
        for moment in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            assert torch.equal(held[moment], state[i][moment] * ~new[name]), (name, moment)
        assert held["step"] == state[i]["step"] == 3
    assert (net[2].weight[~dead[1]][:, dead[0]] == 0).all()
    assert (net[4].weight[:, dead[1]] == 0).all()
    assert (net[0].bias[dead[0]] != before[0].bias[dead[0]]).all()
    assert (net[2].weight[dead[1]] != 0).all()  # drawn after those that they read


def test_tau_and_a_seed(x):
    alike = [net_of(20) for _ in range(3)]
    counts = [
        redo(net, x, tau=tau, seed=0) for net, tau in zip(alike, (0.7, 0.7, 0.0), strict=True)
    ]
    size = torch.relu(net_of(20)[0](x)).mean(dim=0)
    assert counts == [int((size <= 0.7 * size.mean()).sum())] * 2 + [int((size == 0).sum())]
    assert counts[0] > counts[2]
    torch.testing.assert_close(alike[0].state_dict(), alike[1].state_dict(), rtol=0, atol=0)
    dead = net_of(5)
    kill(dead[0], *range(5))
    assert redo(dead, x) == 5  # a layer that is wholly dead
    random = torch.get_rng_state()
    redo(net_of(20), x, seed=4)
    torch.manual_seed(0)
    net_of(20)
    assert not torch.equal(random, torch.zeros_like(random))


def test_channels_after_flattening_and_normalisation():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 1),
        nn.LayerNorm([3, 2, 3]),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(18, 6),
        nn.LayerNorm(6),
        nn.ReLU(),
        nn.Linear(6, 2),
    )
    with torch.no_grad():
        for norm, unit in ((net[1], 2), (net[4], 1), (net[8], 5)):
            norm.bias.fill_(1.0)
            norm.weight[unit], norm.bias[unit] = 0.0, -1.0
        net[1].running_mean += 1.0
    before, image = copy.deepcopy(net), torch.randn(16, 1, 4, 5)
    assert redo(net, image, tau=0.0) == 3
    changed = {
        name: (parameter != was).nonzero(as_tuple=True)
        for (name, parameter), was in zip(net.named_parameters(), before.parameters(), strict=True)
    }
    for name, axis, unit in (
        ("0.weight", 0, 2), ("0.bias", 0, 2), ("1.weight", 0, 2), ("1.bias", 0, 2),
        ("4.weight", 0, 1), ("4.bias", 0, 1), ("8.weight", 0, 5), ("8.bias", 0, 5),
        ("10.weight", 1, 5),
    ):  # fmt: skip
        assert set(changed[name][axis].tolist()) == {unit}, name
    assert (net[1].weight[2], net[1].bias[2], net[1].running_mean[2]) == (1, 0, 0)
    assert (net[4].weight[1] == 1).all()
    assert (net[3].weight[[0, 2], 2] == 0).all()
    assert (net[7].weight[:5].unflatten(1, (3, 6))[:, 1] == 0).all()
    assert net[1].running_mean[[0, 1, 3]].tolist() == before[1].running_mean[[0, 1, 3]].tolist()
    assert set(changed["7.weight"][0].tolist()) == set(range(6))


def test_transposed_convolutions_and_spectral_norm(x):
    torch.manual_seed(0)
    up = nn.Sequential(nn.ConvTranspose1d(2, 4, 2), nn.ReLU(), nn.ConvTranspose1d(4, 2, 2))
    kill(up[0], 3)
    before = copy.deepcopy(up)
    assert redo(up, torch.randn(8, 2, 5), tau=0.0) == 1
    assert (up[2].weight[3] == 0).all()
    assert torch.equal(up[0].weight[:, :3], before[0].weight[:, :3])
    assert (up[0].weight[:, 3] != before[0].weight[:, 3]).all()
    net = net_of(6)
    kill(net[0], 2)
    net[0], net[2] = (parametrizations.spectral_norm(net[i]) for i in (0, 2))
    assert redo(net, x, tau=0.0) >= 1
    assert (net[2].weight[:, 2] == 0).all()
    assert net[0].bias[2] > -1


class Dueling(nn.Module):
    """Two streams that read one trunk; of each it returns a tensor."""

    def __init__(self):
        super().__init__()
        self.trunk, self.value, self.advantage = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 3)

    def forward(self, x):
        h = torch.relu(self.trunk(x))
        a = self.advantage(h)
        return self.value(h) + a - a.mean(dim=1, keepdim=True)


def test_all_that_read_a_unit_no_longer_hear_it(x):
    net = Dueling()
    kill(net.trunk, 3)
    before = net(x)
    redo(net, x, tau=0.0)
    torch.testing.assert_close(net(x), before, rtol=0, atol=1e-6)
    assert (net.value.weight[:, 3] == 0).all()
    assert (net.advantage.weight[:, 3] == 0).all()


@pytest.mark.parametrize("times", [1, 2])
def test_frozen_heads_no_longer_hear_it_either(x, times):
    net = net_of(8, 6)
    for _ in range(times):
        inject(net, "2", seed=1)
    kill(net[0], 3)
    kill(net[2], 1)
    before, frozen = net(x), copy.deepcopy(net.injected.state_dict())
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad])
    redo(net, x, tau=0.0, optimizer=optimizer)
    torch.testing.assert_close(net(x), before, rtol=0, atol=1e-6)
    for pair in net.injected:
        for head in (pair.old, pair.copy):
            assert (head[0].weight[:, 3] == 0).all()
    now = net.injected.state_dict()
    for name, was in frozen.items():  # and nothing else of them changed
        same = torch.ones(8, dtype=torch.bool)
        same[3] = False
        first = name.endswith("0.weight")
        assert (
            torch.equal(now[name][:, same], was[:, same]) if first else torch.equal(now[name], was)
        )


def test_only_the_units_of_some_heads(x):
    net = net_of(8, 6)
    kill(net[0], 3)
    kill(net[2], 1)
    before = copy.deepcopy(net)
    redo(net, x, at="2", tau=0.0)
    assert torch.equal(net[0].bias, before[0].bias)
    assert net[2].bias[1] > -1
    with pytest.raises(RegrowError, match="the head '4' has no hidden units"):
        redo(net, x, at="4")


# Refusals.


class Residual(nn.Module):
    def __init__(self, before_output=False, returns=False):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.before_output, self.returns = before_output, returns

    def forward(self, x):
        h = torch.relu(self.a(x))
        if self.returns:
            return self.b(h), h
        if self.before_output:
            return self.b(h) + h
        return self.c(h + torch.relu(self.b(h)))


class Between(nn.Module):
    def __init__(self, between, reads):
        super().__init__()
        self.a, self.between, self.b = nn.Linear(4, 6), between, nn.Linear(reads, 2)

    def forward(self, x):
        return self.b(self.between(self.a(x)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.rnn, self.b = nn.Linear(4, 5), nn.GRU(5, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.b(self.rnn(torch.relu(self.a(x)))[0])


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Residual(), "'c' reads the units of 'a' and 'b' together"),
        (Residual(before_output=True), "the output hears the units of 'a' past the next layer"),
        (Residual(returns=True), "the output hears the units of 'a' past the next layer"),
        (Between(nn.GLU(), 3), "'b' reads 3 features, of which it is not known"),
        (Recurrent(), r"'rnn' \(GRU\) is neither linear nor a convolution"),
        (nn.Linear(4, 2), "Linear has no hidden units"),
        (
            nn.Sequential(
                nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 4, 1, groups=2), nn.Conv1d(4, 2, 1)
            ),
            r"'1' \(Conv1d\) has 2 groups",
        ),
        (
            nn.Sequential(
                parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2)
            ),
            "the weight of '0' is computed from other parameters",
        ),
        (
            nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3)),
            "'3' reads 1 features, of which it is not known how they belong to the 6 units of '0'",
        ),
    ],
)
def test_units_that_are_heard_elsewhere_are_refused(x, net, message):
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RegrowError, match=message) as error:
        redo(net, x, tau=10.0)
    assert "\n" not in str(error.value)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_arguments_are_checked(x):
    net = net_of(5)
    with pytest.raises(RegrowError, match=r"tau is -1.0; it must be 0 or more"):
        redo(net, x, tau=-1.0)
    with pytest.raises(RegrowError, match=r"the optimizer does not hold '2.weight'"):
        redo(net, x, optimizer=torch.optim.SGD(net[0].parameters(), 0.1))


def test_what_cannot_be_drawn_anew_leaves_the_module_as_it_was(x):
    net = net_of(5, 5)
    net[2].reset_parameters = None
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RegrowError, match=r"has parameters and no reset_parameters"):
        redo(net, x, tau=10.0)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_features_that_are_returned_can_be_left_out(x):
    net = Residual(returns=True)
    kill(net.a, 0)
    assert redo(net, x, tau=0.0, forward=lambda module, x: module(x)[0]) >= 1
    assert len(connections(net, x, lambda module, x: module(x)[0]).heard) == 1
