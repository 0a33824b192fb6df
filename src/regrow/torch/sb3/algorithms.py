"""The networks of each algorithm: module, head, optimizer, targets.

A head begins where that of this library's own agents does: after the convolutions, or after the
first layer of a network of linear layers.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from regrow.errors import RegrowError
from regrow.torch.heads import is_frozen
from regrow.torch.learners import TorchLearner, joined

ALGORITHMS = ("DQN", "QRDQN", "SAC", "TQC", "TD3", "DDPG", "PPO", "A2C")


def algorithm_of(model: Any) -> str:
    """The algorithm that a model's class is or inherits from; `RegrowError` for any other."""
    for kind in type(model).__mro__:
        if kind.__name__ in ALGORITHMS and kind.__module__.split(".")[0] in _PACKAGES:
            return kind.__name__
    raise RegrowError(
        f"{type(model).__name__} is no algorithm that regrow knows; there are: "
        f"{', '.join(ALGORITHMS)} (others through regrow.torch.LoopSubject)"
    )


_PACKAGES = ("stable_baselines3", "sb3_contrib")


def learners_of(model: Any) -> list[TorchLearner]:
    """The networks that a model trains, by the names "q", "actor", "critic" or "policy"."""
    return _LEARNERS[algorithm_of(model)](model)


def fresh_policy(model: Any) -> Any:
    """A newly initialised policy of the same architecture, as the model itself would make it."""
    more = {"use_sde": model.use_sde} if hasattr(model, "rollout_buffer") else {}
    policy = model.policy_class(
        model.observation_space,
        model.action_space,
        model.lr_schedule,
        **{**more, **model.policy_kwargs},
    )
    return policy.to(model.device)


def _values(model: Any) -> list[TorchLearner]:
    """DQN and QRDQN: one network with a target."""
    name = "q_net" if hasattr(model.policy, "q_net") else "quantile_net"
    module = getattr(model.policy, name)
    layers = [*_extractor_layers(module), *_linear_layers(module, name)]
    return [
        _learner(
            "q",
            module,
            [layers],
            model.policy.optimizer,
            (getattr(model.policy, f"{name}_target"),),
            lambda: getattr(fresh_policy(model), name),
            split=_after_extractor(module),
        )
    ]


def _actor_and_critics(model: Any) -> list[TorchLearner]:
    """SAC, TQC, TD3 and DDPG: an actor, and critics that one optimizer trains."""
    policy = model.policy
    trunk = "latent_pi" if hasattr(policy.actor, "latent_pi") else "mu"
    layers = [*_extractor_layers(policy.actor), *_linear_layers(policy.actor, trunk)]
    if trunk == "latent_pi":
        # With gSDE log_std is a parameter, and mu alone is the end.
        layers += ["mu, log_std" if isinstance(policy.actor.log_std, nn.Linear) else "mu.0"]
    actor_target = getattr(policy, "actor_target", None)
    # Features and actions are joined in between, so that a critic's head is a chain by itself.
    critics = [_linear_layers(policy.critic, f"qf{i}") for i in range(_critics(policy.critic))]
    encoded = bool(list(policy.critic.features_extractor.parameters()))
    return [
        _learner(
            "actor",
            policy.actor,
            [layers],
            policy.actor.optimizer,
            () if actor_target is None else (actor_target,),
            lambda: fresh_policy(model).actor,
            split=_after_extractor(policy.actor),
        ),
        _learner(
            "critic",
            policy.critic,
            critics,
            policy.critic.optimizer,
            (policy.critic_target,),
            lambda: fresh_policy(model).critic,
            split=0 if encoded else None,
        ),
    ]


def _critics(critic: nn.Module) -> int:
    return sum(name.startswith("qf") and name[2:].isdigit() for name, _ in critic.named_children())


def _policy(model: Any) -> list[TorchLearner]:
    """PPO and A2C: one module with an actor and a critic, which one optimizer trains."""
    policy = model.policy
    shared = policy.share_features_extractor
    prefixes = (
        ("features_extractor",) * 2
        if shared
        else ("pi_features_extractor", "vf_features_extractor")
    )
    ends = ("action_net", "value_net")
    bodies = ("mlp_extractor.policy_net", "mlp_extractor.value_net")
    chains = [
        [*_extractor_layers(policy, prefix), *_linear_layers(policy, body), *_ends(policy, end)]
        for prefix, body, end in zip(prefixes, bodies, ends, strict=True)
    ]
    if shared and len(chains[0]) == len(chains[1]) and len(_extractor_layers(policy)) > 0:
        alone = [chain[len(_extractor_layers(policy)) :] for chain in chains]
        if all(len(chain) == 1 for chain in alone):  # the features feed both ends
            chains = [[*_extractor_layers(policy), f"{alone[0][0]}, {alone[1][0]}"]]
        else:
            chains = alone
    split = _after_extractor(policy)
    return [
        _learner(
            "policy", policy, chains, policy.optimizer, (), lambda: fresh_policy(model), split=split
        )
    ]


def _ends(policy: Any, name: str) -> list[str]:
    module = getattr(policy, name)
    return [name] if isinstance(module, nn.Linear) else _linear_layers(policy, name)


def _learner(
    name: str,
    module: nn.Module,
    chains: Sequence[Sequence[str]],
    optimizer: torch.optim.Optimizer,
    targets: tuple[nn.Module, ...],
    fresh: Callable[[], nn.Module],
    split: int | None = None,
) -> TorchLearner:
    """A learner whose heads begin after the convolutions, or after the first linear layer."""
    modules = dict(module.named_modules())

    def begins(chain: Sequence[str]) -> int:
        kinds = [modules.get(layer) for layer in chain]
        convolved = [i for i, kind in enumerate(kinds) if isinstance(kind, nn.modules.conv._ConvNd)]
        return convolved[-1] + 1 if convolved else min(1, len(chain) - 1)

    at = tuple(
        head
        for chain in chains
        for head in joined(module, chain[begins(chain) if split is None else split :])
    )
    return TorchLearner(
        name, module, at, optimizer, targets, tuple(tuple(chain) for chain in chains), fresh
    )


def _linear_layers(module: nn.Module, name: str) -> list[str]:
    """The names of the linear layers within a part, as the module has them."""
    part = module.get_submodule(name)
    if isinstance(part, nn.Linear):
        return [name]
    return [
        f"{name}.{inner}"
        for inner, layer in part.named_modules()
        if isinstance(layer, nn.Linear) and not is_frozen(inner)
    ]


def _extractor_layers(module: Any, prefix: str = "features_extractor") -> list[str]:
    """The layers of a features extractor that is a chain of them, as NatureCNN is.

    Of another extractor none: it is the encoder as a whole.
    """
    extractor = getattr(module, prefix, None)
    if extractor is None or type(extractor).__name__ != "NatureCNN":
        return []
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return [
        f"{prefix}.{name}"
        for name, layer in extractor.named_modules()
        if isinstance(layer, kinds) and not is_frozen(name)
    ]


def _after_extractor(module: Any) -> int | None:
    """0 where a features extractor of one's own is the encoder; else None: as the layers are."""
    known = _extractor_layers(module) or not list(module.features_extractor.parameters())
    return None if known else 0


class Scalar(NamedTuple):
    """A learned number outside the networks: the parameter, its first value, its optimizer."""

    parameter: torch.Tensor
    first: float
    optimizer: torch.optim.Optimizer


def scalars_of(model: Any) -> list[Scalar]:
    """SAC's and TQC's temperature, and the logarithm of a policy's standard deviation."""
    found = list[Scalar]()
    if getattr(model, "log_ent_coef", None) is not None:
        text = str(model.ent_coef)
        initial = float(text.split("_")[1]) if "_" in text else 1.0
        value = float(torch.log(torch.ones(1) * initial).item())
        found.append(Scalar(model.log_ent_coef, value, model.ent_coef_optimizer))
    log_std = getattr(model.policy, "log_std", None)
    if isinstance(log_std, nn.Parameter):
        found.append(Scalar(log_std, float(model.policy.log_std_init), model.policy.optimizer))
    return found


def predicted(model: Any, observations: Any, actions: Any) -> torch.Tensor:
    """What a model predicts the return of actions, or of observations, to be; (batch,).

    `actions` as the replay buffer holds them. Quantiles are averaged, and of several critics the
    least counts.
    """
    kind = algorithm_of(model)
    observed, _ = model.policy.obs_to_tensor(observations)
    if kind in ("PPO", "A2C"):
        return model.policy.predict_values(observed).flatten()
    taken = torch.as_tensor(actions, device=model.device)
    if kind in ("DQN", "QRDQN"):
        net = model.policy.q_net if kind == "DQN" else model.policy.quantile_net
        values = net(observed)
        values = values if kind == "DQN" else values.mean(dim=1)
        return values.gather(1, taken.reshape(-1, 1).long()).flatten()
    critic = model.policy.critic
    values = critic(observed, taken.float())
    if kind == "TQC":
        return values.mean(dim=2).min(dim=1).values
    return torch.cat(values, dim=1).min(dim=1).values


_LEARNERS: dict[str, Callable[[Any], list[TorchLearner]]] = {
    "DQN": _values,
    "QRDQN": _values,
    "SAC": _actor_and_critics,
    "TQC": _actor_and_critics,
    "TD3": _actor_and_critics,
    "DDPG": _actor_and_critics,
    "PPO": _policy,
    "A2C": _policy,
}
