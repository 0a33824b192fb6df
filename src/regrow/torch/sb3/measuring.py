"""Probes of a model of Stable-Baselines3: what each of its networks reads, and gives."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from regrow.torch import measuring
from regrow.torch.sb3 import experience
from regrow.torch.sb3.algorithms import algorithm_of, learners_of

TRANSITIONS = 512


def measured(
    model: Any,
    probes: Sequence[str] = (),
    *,
    fresh: bool = False,
    since: measuring.Values | None = None,
) -> dict[str, float]:
    """Probe values by name, on transitions as an update draws them (`measuring.measured`).

    The gradient of the loss is known for DQN only.
    """
    learners = learners_of(model)
    batch = experience.sample(model, TRANSITIONS)
    inputs = {
        one.name: (batch.observations, batch.actions)
        if one.name == "critic"
        else (batch.observations,)
        for one in learners
    }
    return measuring.measured(
        learners,
        inputs,
        probes,
        fresh=fresh,
        since=since,
        forwards=_forwards(model),
        losses=_losses(model, batch),
    )


def _forwards(model: Any) -> Mapping[str, Callable[[Any, Any], torch.Tensor]]:
    """How each network is called so that it returns a tensor."""

    def actor(module: Any, given: Any) -> torch.Tensor:
        if hasattr(module, "latent_pi"):
            mean, log_std, _ = module.get_action_dist_params(*given)
            return torch.cat([mean, log_std], dim=1)
        return module(*given)

    def critic(module: Any, given: Any) -> torch.Tensor:
        came = module(*given)
        return torch.cat(came, dim=1) if isinstance(came, tuple) else came

    def policy(module: Any, given: Any) -> torch.Tensor:
        features = module.extract_features(*given)
        if module.share_features_extractor:
            acting, valuing = module.mlp_extractor(features)
        else:
            acting = module.mlp_extractor.forward_actor(features[0])
            valuing = module.mlp_extractor.forward_critic(features[1])
        return torch.cat([module.action_net(acting), module.value_net(valuing)], dim=1)

    del model
    return {"actor": actor, "critic": critic, "policy": policy}


def _losses(model: Any, batch: Any) -> Mapping[str, Callable[[nn.Module], torch.Tensor]]:
    if algorithm_of(model) != "DQN":
        return {}

    def temporal_difference(module: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            following = model.q_net_target(batch.next_observations).max(dim=1).values[:, None]
            discount = model.gamma if batch.discounts is None else batch.discounts
            wanted = batch.rewards + (1 - batch.dones) * discount * following
        values = module(batch.observations).gather(1, batch.actions.long())
        return nn.functional.smooth_l1_loss(values, wanted, reduction="none").flatten()

    return {"q": temporal_difference}
