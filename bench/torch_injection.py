"""Overhead of an injected PyTorch module per update, of an idle callback, and of a fork.

    PYTHONPATH=src python bench/torch_injection.py

Each pair is timed in turn, several times over, in one process with one thread; medians of ratios.
"""

import copy
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn

import regrow.sb3
import regrow.torch
from regrow.torch.randomness import Randomness
from regrow.torch.sb3.subject import Sb3Subject

warnings.simplefilter("ignore")
torch.set_num_threads(1)
PAIRS = 15


class ByHand(nn.Module):
    """The same operations, written down: an encoder and three heads."""

    def __init__(self, encoder: nn.Module, head: nn.Module):
        super().__init__()
        self.encoder, self.live = encoder, head
        self.old, self.copy = (copy.deepcopy(head).requires_grad_(False) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.encoder(x)
        return self.old(z) + (self.live(z) - self.copy(z))


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 18)
    )


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 81, 512), nn.ReLU(), nn.Linear(512, 18),
    )  # fmt: skip


SHAPES = {"mlp": (mlp, "2", 2, (32, 64)), "nature cnn": (cnn, "5", 5, (32, 4, 84, 84))}


def updates(module: nn.Module, x: torch.Tensor, *, compiled: bool) -> Callable[[], None]:
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad])
    called = torch.compile(module) if compiled else module

    def update() -> None:
        optimizer.zero_grad()
        called(x).square().mean().backward()
        optimizer.step()

    return update


def ratio(ours: Callable[[], None], theirs: Callable[[], None], repeats: int) -> float:
    for one in (ours, theirs):
        for _ in range(5):
            one()
    found = []
    for _ in range(PAIRS):
        times = []
        for one in (ours, theirs):
            began = time.perf_counter()
            for _ in range(repeats):
                one()
            times.append(time.perf_counter() - began)
        found.append(times[0] / times[1])
    return statistics.median(found)


def main() -> None:
    for name, (make, at, split, shape) in SHAPES.items():
        for compiled in (False, True):
            x = torch.randn(shape)
            module = make()
            other = copy.deepcopy(module)
            hand = ByHand(other[:split], other[split:])
            regrow.torch.inject(module, at)
            repeats = 100 if name == "mlp" else 4
            pair = updates(module, x, compiled=compiled), updates(hand, x, compiled=compiled)
            how = "compiled" if compiled else "eager"
            print(f"{name}, {how}: injected / the same by hand {ratio(*pair, repeats):.3f}")
    stable_baselines3()


def stable_baselines3() -> None:
    from stable_baselines3 import DQN

    def model() -> DQN:
        return DQN("MlpPolicy", "CartPole-v1", seed=0, device="cpu", learning_starts=100)

    idle, plain = model(), model()
    callback = regrow.sb3.Inject(at=10**9)
    pair = (
        lambda: idle.learn(2_000, callback=callback, reset_num_timesteps=False),
        lambda: plain.learn(2_000, reset_num_timesteps=False),
    )
    print(f"learn with an idle callback / without {ratio(*pair, 1):.3f}")
    subject = Sb3Subject.of(plain, Randomness.now())
    began = time.perf_counter()
    subject.fork()
    size = len(subject.write())
    print(f"a fork of {size / 1e6:.1f} MB: {time.perf_counter() - began:.3f} s")


if __name__ == "__main__":
    main()
