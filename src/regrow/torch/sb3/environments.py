"""The environments of a model: made by name, begun anew, copied where that is exact."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regrow.environments.gymnasium import plain
from regrow.errors import RegrowError, in_a_line, require
from regrow.registry import make
from regrow.torch.randomness import seed_from
from regrow.torch.scripts import named_function
from regrow.torch.snapshots import dumped, loaded

CHECKED = 200  # env steps for which a copy is compared with what it was copied from


@dataclass(frozen=True)
class Environments:
    """How the environments of a model are made: plain data.

    `name`: an id of Gymnasium (`LunarLander-v3`, `my_module:MyEnv-v0`, with options as in
    `LunarLander-v3(gravity=-5.0)`), or `file.py:function` or `module:function` of one that returns
    an environment, or all of them as a VecEnv. `count`: how many run side by side.
    """

    name: str
    count: int = 1

    def make(self) -> Any:
        """A new VecEnv; `RegrowError` where it cannot be made."""
        from stable_baselines3.common.monitor import Monitor
        from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

        build = self._builder()
        try:
            first = build()
        except RegrowError:
            raise
        except Exception as error:
            raise RegrowError(f"{self.name} cannot be made: {in_a_line(error)}") from error
        if isinstance(first, VecEnv):
            require(
                first.num_envs == self.count,
                f"{self.name} made {first.num_envs} environments; the model has {self.count}",
            )
            return first

        def single(made: Any) -> Callable[[], Any]:
            return lambda: Monitor(made)

        others = [build() for _ in range(self.count - 1)]
        return DummyVecEnv([single(made) for made in (first, *others)])

    def _builder(self) -> Callable[[], Any]:
        place, _, function = self.name.rpartition(":")
        if place.endswith(".py") or (place and function.isidentifier()):
            return named_function(self.name)
        return lambda: _registered(self.name)

    def attach(self, model: Any) -> None:
        """Gives a model new environments, with the statistics of VecNormalize that it has."""
        from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_normalize

        made = type(model)._wrap_env(self.make(), 0)
        normalize = model._vec_normalize_env
        if normalize is not None:
            inner = unwrap_vec_normalize(made)
            require(inner is None or isinstance(inner, VecNormalize), "an unknown normaliser")
            normalize.venv = made if inner is None else inner.venv
            made = normalize
        model.env = made
        model._vec_normalize_env = normalize


def _registered(name: str) -> Any:
    """An environment of Gymnasium by its id, with options in brackets."""
    name = name.removeprefix("gymnasium/")
    name = f"ale_py:{name}" if name.startswith("ALE/") else name
    return plain(make("environments", f"gymnasium/{name}"))


def monitored(env: Any) -> bool:
    """Whether episodes are told by a Monitor."""
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import VecMonitor, is_vecenv_wrapped

    return is_vecenv_wrapped(env, VecMonitor) or all(env.env_is_wrapped(Monitor))


def begin_anew(model: Any, seed: int) -> None:
    """New episodes in all environments of a model."""
    model.env.seed(seed)
    model._last_obs = model.env.reset()
    model._last_episode_starts = np.ones(model.n_envs, bool)
    if model._vec_normalize_env is not None:
        model._last_original_obs = model._vec_normalize_env.get_original_obs()


def reseed(model: Any, seed: int) -> None:
    """Other random numbers for the action space and the environments, mid-episode."""
    model.action_space.seed(seed)
    model.env.action_space.seed(seed)
    for n, one in enumerate(singles(model.env)):
        base = one.unwrapped
        own = np.random.default_rng(seed_from(seed, n))
        if getattr(base, "_np_random", None) is not None:
            base.np_random = own
        one.action_space.seed(seed_from(seed, n, 1))


def singles(env: Any) -> Sequence[Any]:
    """The single environments of a VecEnv of this process."""
    while hasattr(env, "venv"):
        env = env.venv
    return getattr(env, "envs", ())


def why_not_copied(make: Callable[[], Any]) -> str:
    """Why environments cannot be copied mid-episode; "" where a copy goes on as its original.

    Both are stepped by the same actions and compared.
    """
    env = make()
    try:
        env.seed(0)
        env.reset()
        env.action_space.seed(0)
        for _ in range(25):
            env.step(_actions(env))
        try:
            twin = loaded(dumped(env))
        except RegrowError as error:
            return str(error)
        for _ in range(CHECKED):
            taken = _actions(env)
            ours, theirs = env.step(taken), twin.step(taken)
            if not all(_same(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True)):
                return "a copy of it does not go on as the original does"
        return ""
    finally:
        env.close()


def _actions(env: Any) -> Any:
    return np.array([env.action_space.sample() for _ in range(env.num_envs)])


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict):
        return all(_same(value, theirs[key]) for key, value in ours.items())
    return np.array_equal(np.asarray(ours), np.asarray(theirs))
