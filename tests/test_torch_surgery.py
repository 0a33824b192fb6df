"""Injection and resets on PyTorch modules: the four properties, over many shapes of module."""

import copy
import io
import itertools
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import regrow.torch
from regrow.errors import RegrowError
from regrow.torch.injected import Injected

torch.set_num_threads(1)


def mlp(*sizes: int) -> nn.Sequential:
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Net(nn.Module):
    """A module that holds parts, with a forward of its own."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.way = forward

    def forward(self, x):
        return self.way(self, x)


def nature(actions=4):
    body = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten()
    )
    return Net(
        lambda s, x: s.q(s.linear(s.body(x))),
        body=body,
        linear=nn.Sequential(nn.Linear(8 * 5 * 5, 32), nn.ReLU()),
        q=nn.Linear(32, actions),
    )


class Block(nn.Module):
    """Of IMPALA: two convolutions and what skips them."""

    def __init__(self, channels):
        super().__init__()
        self.a, self.b = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return x + self.b(torch.relu(self.a(torch.relu(x))))


def impala():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), Block(8), nn.Flatten(), nn.Linear(8 * 49, 16), nn.ReLU(),
        nn.Linear(16, 3),
    )  # fmt: skip


def dueling():
    def forward(s, x):
        z = torch.relu(s.body(x))
        a = s.advantage(z)
        return s.value(z) + a - a.mean(1, keepdim=True)

    return Net(forward, body=nn.Linear(6, 16), advantage=mlp(16, 16, 4), value=mlp(16, 16, 1))


def twins():
    return Net(
        lambda s, x: torch.cat([s.qf0(x), s.qf1(x)], 1),
        qf0=mlp(6, 16, 16, 1),
        qf1=mlp(6, 16, 16, 1),
    )


def two_heads():
    def forward(s, x):
        z = s.trunk(x)
        return torch.cat([s.mu(z), s.log_std(z)], 1)

    trunk = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    return Net(forward, trunk=trunk, mu=nn.Linear(16, 2), log_std=nn.Linear(16, 2))


def functional():
    return Net(
        lambda s, x: s.fc3(torch.relu(s.fc2(torch.relu(s.fc1(x))))),
        fc1=nn.Linear(6, 16), fc2=nn.Linear(16, 16), fc3=nn.Linear(16, 3),
    )  # fmt: skip


def with_lstm_encoder():
    return Net(
        lambda s, x: s.head(s.lstm(x.unsqueeze(1))[0][:, -1]),
        lstm=nn.LSTM(6, 8, batch_first=True), head=mlp(8, 8, 2),
    )  # fmt: skip


def normalised(kind, at_start=False):
    first = parametrizations.spectral_norm(nn.Linear(6, 16)) if at_start else nn.Linear(6, 16)
    return nn.Sequential(first, nn.ReLU(), kind(nn.Linear(16, 16)), nn.ReLU(), nn.Linear(16, 2))


def embedding():
    return Net(
        lambda s, x: s.head(s.table(x[:, 0].abs().long().clamp(max=9))),
        table=nn.Embedding(10, 8), head=mlp(8, 8, 2),
    )  # fmt: skip


torch.manual_seed(0)
VECTOR, IMAGE = torch.randn(5, 6), torch.randn(5, 3, 16, 16)
RIGHT = {
    "mlp": (lambda: mlp(6, 16, 16, 3), "2", VECTOR),
    "mlp, last layer": (lambda: mlp(6, 16, 16, 3), "4", VECTOR),
    "mlp, all of it": (lambda: mlp(6, 16, 16, 3), "0", VECTOR),
    "nested sequentials": (
        lambda: nn.Sequential(mlp(6, 8, 8), nn.Tanh(), nn.Linear(8, 2)), "0.2", VECTOR),
    "nature cnn": (nature, "linear > q", IMAGE),
    "impala": (impala, "3", IMAGE),
    "dueling": (dueling, ["advantage", "value"], VECTOR),
    "twin critics": (twins, ["qf0.2", "qf1.2"], VECTOR),
    "trunk with two heads": (two_heads, "trunk.2 > mu, log_std", VECTOR),
    "only the two heads": (two_heads, ["mu", "log_std"], VECTOR),
    "functional activations, last layer": (functional, "fc3", VECTOR),
    "functional activations, each layer": (functional, ["fc2", "fc3"], VECTOR),
    "lstm encoder": (with_lstm_encoder, "head", VECTOR),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8),
                              nn.LayerNorm(8), nn.Linear(8, 2)), "3", VECTOR),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4),
                              nn.Flatten(), nn.Linear(4 * 144, 2)), "1", IMAGE),
    "batch norm in the encoder": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.ReLU(),
                              nn.Linear(8, 2)), "2", VECTOR),
    "spectral norm in the encoder": (lambda: normalised(lambda x: x, at_start=True), "2", VECTOR),
    "weight norm": (lambda: normalised(parametrizations.weight_norm), "2", VECTOR),
    "orthogonal": (lambda: normalised(parametrizations.orthogonal), "2", VECTOR),
    "embedding encoder": (embedding, "head", VECTOR),
    "prelu": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 2)),
              "1", VECTOR),
    "no bias": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2, bias=False)), "1", VECTOR),
    "idle dropout": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.0), nn.Linear(8, 2)), "1", VECTOR),
    "transposed convolution": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 3)), "1", IMAGE),
    "double precision": (
        lambda: nn.Sequential(nn.Linear(6, 8).double(), nn.Linear(8, 2).double()), "1",
        VECTOR.double()),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _the_same_numbers_every_time():
    torch.manual_seed(1)


def output(module, inputs):
    return [module.train(mode)(inputs) for mode in (False, True)]


def trainable(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def gradients_of(module, inputs):
    """In double precision, where only the order of a sum differs by rounding; of a copy: in train
    mode a call may change what a module keeps.
    """
    module = copy.deepcopy(module).double()
    module.zero_grad()
    module(inputs.double()).square().sum().backward()
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", RIGHT)
def test_the_four_properties(shape):
    make, at, inputs = RIGHT[shape]
    module = make()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.1)

    def backward():
        optimizer.zero_grad()
        module(inputs).square().sum().backward()

    for _ in range(2):
        backward()
        optimizer.step()
    backward()
    random = torch.get_rng_state()
    before, count = output(copy.deepcopy(module), inputs), trainable(module)
    gradients = gradients_of(module, inputs)
    moments = {id(p): copy.deepcopy(s) for p, s in optimizer.state.items()}
    handle = regrow.torch.inject(module, at, optimizer=optimizer, seed=1, inputs=inputs)
    assert torch.equal(torch.get_rng_state(), random), "the seed is its own"
    # 1: the output, in eval and in train mode
    for ours, theirs in zip(output(copy.deepcopy(module), inputs), before, strict=True):
        assert torch.equal(ours, theirs)
    assert trainable(module) == count  # 2
    # 4: the encoder's gradient and moments
    after = gradients_of(module, inputs)
    live = {n for head in regrow.torch.heads.find(module, at) for n in head.parameters(module)}
    for name, parameter in module.named_parameters():
        if name in live:
            assert parameter not in optimizer.state
        elif parameter.requires_grad:
            assert torch.allclose(after[name], gradients[name], rtol=1e-8, atol=1e-9), name
            for key, value in moments[id(parameter)].items():
                assert torch.equal(torch.as_tensor(optimizer.state[parameter][key]), value)
    # 3: frozen parameters stay, live ones move
    held = {n: p.detach().clone() for n, p in module.named_parameters()}
    backward()
    optimizer.step()
    for name, parameter in module.named_parameters():
        moved = not torch.equal(parameter, held[name])
        assert moved == parameter.requires_grad or (parameter.grad == 0).all(), name
    assert [event["seed"] for event in handle.history] == [1] * len(handle.at)


@pytest.mark.parametrize("shape", RIGHT)
def test_again_and_from_a_state_dict(shape):
    make, at, inputs = RIGHT[shape]
    module = make()
    count = trainable(module)
    for seed in (1, 2):
        before = output(copy.deepcopy(module), inputs)
        regrow.torch.inject(module, at, seed=seed)
        for ours, theirs in zip(output(copy.deepcopy(module), inputs), before, strict=True):
            assert torch.equal(ours, theirs)
    assert trainable(module) == count
    # a state dict, loaded into a new module without code
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = make()
    regrow.torch.load_state_dict(other, torch.load(file, weights_only=True))
    for ours, theirs in zip(
        output(other, inputs), output(copy.deepcopy(module), inputs), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert trainable(other) == count


def tied():
    module = mlp(6, 6, 6)
    module[2].weight = module[0].weight
    return module


def replaced_forward():
    module = mlp(6, 8, 2)
    module.forward = lambda x: x
    return module


def hooked():
    module = mlp(6, 8, 2)
    module[2].register_forward_hook(lambda *_: None)
    return module


def frozen():
    return mlp(6, 8, 2).requires_grad_(False)


class Drawn(nn.Module):
    """Parameters without reset_parameters."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return x * self.scale


class Doubled(nn.Module):
    """A parametrization without an inverse."""

    def forward(self, x):
        return 2 * x


def parametrized():
    module = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2))
    parametrize.register_parametrization(module[1], "weight", Doubled())
    return module


def batch_normalised():
    return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.BatchNorm1d(8))


REFUSED = {
    "unknown name": (lambda: mlp(6, 8, 2), "3x", "no module '3x'"),
    "near name": (twins, "qf2.2", "did you mean 'qf"),
    "tied": (tied, "2", "is also '0.weight'"),
    "dropout": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.1), nn.Linear(8, 2)), "1",
        "drops units at random"),
    "batch norm": (batch_normalised, "1", "normalises by batch statistics"),
    "spectral norm": (lambda: normalised(parametrizations.spectral_norm), "2", "spectral"),
    "old weight norm": (lambda: hooked(), "2", "has forward hooks"),
    "lstm head": (with_lstm_encoder, "lstm", "returns a state"),
    "cuda graph": (replaced_forward, "2", "CUDA graph"),
    "frozen": (frozen, "2", "no parameter that learns"),
    "no parameters": (lambda: mlp(6, 8, 2), "1x", "no module"),
    "no reset_parameters": (
        lambda: nn.Sequential(nn.Linear(6, 8), Drawn()), "1", "no reset_parameters"),
    "a parametrization that cannot be set": (parametrized, "1", "no right_inverse"),
    "not a chain": (functional, "fc2 > fc3", "something is computed between"),
    "ends without a module before": (two_heads, "mu, log_std", "several ends"),
    "the same head twice": (twins, ["qf0.2", "qf0.2"], "belongs to two of the heads"),
    "lazy": (lambda: nn.Sequential(nn.Linear(6, 8), nn.LazyLinear(2)), "1", "no shape yet"),
    "data parallel": (lambda: nn.DataParallel(mlp(6, 8, 2)), "module.2", "wrap it again"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_injected_is_refused_and_left_as_it_was(case):
    make, at, text = REFUSED[case]
    module = make()
    kinds = [type(m) for m in module.modules()]
    with pytest.raises(RegrowError, match=text):
        regrow.torch.inject(module, at, inputs=VECTOR)
    assert [type(m) for m in module.modules()] == kinds


def test_an_optimizer_that_does_not_hold_the_module_is_refused():
    module, other = mlp(6, 8, 2), mlp(6, 8, 2)
    optimizer = torch.optim.Adam(other.parameters())
    with pytest.raises(RegrowError, match=r"does not hold '2\.weight'"):
        regrow.torch.inject(module, "2", optimizer=optimizer)
    with pytest.raises(RegrowError, match="LBFGS"):
        regrow.torch.inject(module, "2", optimizer=torch.optim.LBFGS(module.parameters()))
    assert not any(isinstance(m, Injected) for m in module.modules())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules_are_refused():
    scripted = torch.jit.trace(mlp(6, 8, 2), VECTOR)
    with pytest.raises(RegrowError, match=r"torch\.jit"):
        regrow.torch.inject(scripted, "2")


def test_targets_get_the_same_new_head_beside_their_own():
    module, target = mlp(6, 8, 8, 2), mlp(6, 8, 8, 2)
    before = target(VECTOR)
    regrow.torch.inject(module, "2", targets=target, seed=3)
    assert torch.equal(target(VECTOR), before)
    for ours, theirs in zip(module.injected[0].copy.parameters(),
                            target.injected[0].copy.parameters(), strict=True):  # fmt: skip
        assert torch.equal(ours, theirs)
    assert not torch.equal(target.injected[0].old[0].weight, module.injected[0].old[0].weight)
    # Followed by position, as polyak averaging does it, it arrives at the network.
    for theirs, ours in zip(target.parameters(), module.parameters(), strict=True):
        theirs.data.copy_(ours)
    assert torch.equal(target(VECTOR), module(VECTOR))
    with pytest.raises(RegrowError, match="the head of the target holds"):
        regrow.torch.inject(mlp(6, 8, 8, 2), "2", targets=mlp(6, 8, 9, 2))


def test_references_stay_valid():
    module = mlp(6, 8, 8, 2)
    held = list(module.parameters())
    alias, layer = [module], module[2]
    regrow.torch.inject(module, "2", seed=0)
    assert [id(p) for p in module.parameters() if p.requires_grad] == [id(p) for p in held]
    assert alias[0] is module
    assert module[2] is layer
    assert len(module) == 5
    assert isinstance(module[2:], nn.Sequential)
    assert list(module)[2] is layer


def test_ablations():
    module = mlp(6, 8, 8, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(VECTOR).sum().backward()
    optimizer.step()
    before, kept = module(VECTOR), module[2].weight.detach().clone()
    regrow.torch.inject(module, "2", optimizer=optimizer, freeze=False, seed=0)
    assert torch.equal(module(VECTOR), before)
    old = module.injected[0].old[0].weight
    assert torch.equal(old, kept)
    assert old in optimizer.state, "the old head learns on with its moments"
    module(VECTOR).sum().backward()
    optimizer.step()
    assert not torch.equal(old, kept)
    other = mlp(6, 8, 8, 2)
    before = other(VECTOR)
    regrow.torch.inject(other, "2", subtract=False, seed=0)
    assert not torch.equal(other(VECTOR), before)


@pytest.mark.parametrize(("moments", "left"), [("reset", 2), ("keep", 6), ("reset_all", 0)])
def test_moments(moments, left):
    module = mlp(6, 8, 8, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(VECTOR).sum().backward()
    optimizer.step()
    regrow.torch.inject(module, "2", optimizer=optimizer, moments=moments)
    assert len(optimizer.state) == left


def test_copies_move_and_pickle():
    module = mlp(6, 8, 8, 2)
    regrow.torch.inject(module, "2", seed=0)
    for other in (copy.deepcopy(module), _pickled(module), copy.deepcopy(module).to("cpu")):
        assert torch.equal(other(VECTOR), module(VECTOR))
        assert isinstance(other, Injected)
        other[2].weight.data.add_(1)
        assert not torch.equal(other(VECTOR), module(VECTOR))
    assert module.double()(VECTOR.double()).dtype == torch.float64


def _pickled(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_mixed_precision():
    module = mlp(6, 8, 8, 2)
    with torch.autocast("cpu", torch.bfloat16):
        before = module(VECTOR)
        regrow.torch.inject(module, "2", seed=0)
        assert torch.equal(module(VECTOR), before)


def test_reset_drops_what_was_injected_and_copies_the_target():
    module, target = mlp(6, 8, 8, 2), mlp(6, 8, 8, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(VECTOR).sum().backward()
    optimizer.step()
    regrow.torch.inject(module, "2", optimizer=optimizer, targets=target, seed=0)
    encoder = module[0].weight.detach().clone()
    regrow.torch.reset(module, "2", optimizer=optimizer, targets=target, seed=5)
    assert type(module) is nn.Sequential
    assert torch.equal(module[0].weight, encoder)
    assert torch.equal(target(VECTOR), module(VECTOR))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = [nn.Linear(8, 8), nn.Linear(8, 2)]
    assert torch.equal(module[2].weight, expected[0].weight)
    assert torch.equal(module[4].bias, expected[1].bias)
    assert len(optimizer.state) == 2
    regrow.torch.reset(module, None, optimizer=optimizer)
    assert not torch.equal(module[0].weight, encoder)
    assert not optimizer.state


def test_shrink_and_perturb():
    module, target = mlp(6, 8, 2), mlp(6, 8, 2)
    held = module[2].weight.detach().clone(), module[0].weight.detach().clone()
    fresh = mlp(6, 8, 2)
    regrow.torch.shrink_perturb(
        module, "2", shrink=0.8, perturb=0.2, init=fresh, targets=target, target="copy"
    )
    assert torch.allclose(module[2].weight, 0.8 * held[0] + 0.2 * fresh[2].weight)
    assert torch.equal(module[0].weight, held[1])
    assert torch.equal(target(VECTOR), module(VECTOR))
    with pytest.raises(RegrowError, match=r"shrink is 1\.5"):
        regrow.torch.shrink_perturb(module, shrink=1.5)


def test_reset_optimizer():
    module = mlp(6, 8, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(VECTOR).sum().backward()
    optimizer.step()
    regrow.torch.reset_optimizer(optimizer, module, "2")
    assert len(optimizer.state) == 2
    regrow.torch.reset_optimizer(optimizer)
    assert not optimizer.state


@pytest.mark.parametrize(
    ("make", "at"),
    [
        (lambda: mlp(6, 8, 8, 2), "2"),
        (lambda: mlp(6, 2), "0"),
        (nature, "linear > q"),
        (impala, "3"),
        (two_heads, "trunk.2 > mu, log_std"),
        (with_lstm_encoder, "head"),
    ],
)
def test_heads_are_proposed(make, at):
    found = regrow.torch.find_head(make())
    assert found.at == at
    assert found.why


COMPILED = """
import torch
from torch import nn
import regrow.torch

x = torch.randn(5, 6)
module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
compiled = torch.compile(module, backend="eager")
before = compiled(x)
regrow.torch.inject(compiled, "2", seed=0)
print(torch.equal(compiled(x), before))
module[2].weight.data.add_(1.0)
print(torch.equal(compiled(x), module(x)), torch.equal(compiled(x), before))


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.mu, self.log_std = nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x):
        z = self.trunk(x)
        return self.mu(z) + self.log_std(z)


actor = Actor()
regrow.torch.inject(actor, "trunk.2 > mu, log_std", seed=0)
print(torch.equal(torch.compile(actor, backend="eager")(x), actor(x)))
"""


def test_a_compiled_module_is_injected():
    """Compiled before, and compiled after; traced only, to be fast."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True", "False", "True"], done.stderr


WRAPPED_AGAIN = """
import sys, torch, torch.distributed as dist, regrow.errors, regrow.torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
optimizer, x = torch.optim.Adam(module.parameters()), torch.randn(16, 4)
def step(net):
    optimizer.zero_grad()
    net(x).square().mean().backward()
    optimizer.step()
wrapped = DistributedDataParallel(module)
step(wrapped)
before = wrapped(x).detach()
try:
    regrow.torch.inject(wrapped, "2", optimizer=optimizer)
except regrow.errors.RegrowError as error:
    print("wrap it again" in str(error))
regrow.torch.inject(wrapped.module, "2", optimizer=optimizer)
wrapped = DistributedDataParallel(wrapped.module)
print(torch.equal(wrapped(x), before))
values = {n: p.clone() for n, p in module.named_parameters()}
step(wrapped)
moved = {n for n, p in module.named_parameters() if not torch.equal(p, values[n])}
print(moved == {n for n, p in module.named_parameters() if p.requires_grad})
"""


def test_in_distributed_training_the_module_is_injected_and_wrapped_again(tmp_path):
    line = [sys.executable, "-W", "ignore", "-c", WRAPPED_AGAIN, str(tmp_path / "group")]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True", "True"], done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize:UserWarning")
def test_quantised_modules_are_refused():
    """Their weights do not learn."""
    quantised = torch.ao.quantization.quantize_dynamic(mlp(6, 8, 2), {nn.Linear}, torch.qint8)
    with pytest.raises(RegrowError, match="no parameter that learns"):
        regrow.torch.inject(quantised, "2")


def test_no_jax_is_needed():
    code = "import sys, regrow, regrow.torch; print('jax' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    code = "import sys, regrow; print('jax' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_another_place_of_an_injected_head_is_refused_before_anything_changes():
    module, target = twins(), twins()
    regrow.torch.inject(module, "qf1.2", targets=target, seed=0)
    with pytest.raises(RegrowError, match=r"'qf1' was injected before as a part of the head"):
        regrow.torch.inject(module, ["qf0.2", "qf1.0"], targets=target)
    assert type(module.qf0) is type(target.qf0) is nn.Sequential
    assert len(module.qf1.injected) == len(target.qf1.injected) == 1
    chained = two_heads()
    regrow.torch.inject(chained, "trunk.2 > mu, log_std", seed=0)
    with pytest.raises(RegrowError, match="'mu' was injected before"):
        regrow.torch.inject(chained, "mu")


def test_everything_is_shrunk_after_an_injection_but_frozen_heads():
    module = twins()
    regrow.torch.inject(module, "qf0.2", seed=0)
    old = module.qf0.injected[0].old[0].weight.clone()
    before = module.qf0[2].weight.detach().clone()
    regrow.torch.shrink_perturb(module, shrink=0.5, perturb=0.0, seed=0)
    assert torch.equal(module.qf0[2].weight, 0.5 * before)
    assert torch.equal(module.qf0.injected[0].old[0].weight, old)
