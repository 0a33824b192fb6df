"""Interventions and measurements on PyTorch modules, in place; needs no JAX."""

import importlib
from typing import TYPE_CHECKING, Any

from regrow.errors import require_package as _require_package

_require_package("torch", "regrow.torch", "torch")

from regrow.torch.heads import Proposal as Proposal
from regrow.torch.heads import find_head as find_head
from regrow.torch.learners import TorchLearner as TorchLearner
from regrow.torch.probes import measure as measure
from regrow.torch.recycling import redo as redo
from regrow.torch.saving import load_state_dict as load_state_dict
from regrow.torch.surgery import Handle as Handle
from regrow.torch.surgery import inject as inject
from regrow.torch.surgery import reset as reset
from regrow.torch.surgery import reset_optimizer as reset_optimizer
from regrow.torch.surgery import shrink_perturb as shrink_perturb

if TYPE_CHECKING:
    from regrow.torch.loop import LoopSubject as LoopSubject
    from regrow.torch.loop import Steps as Steps


def __getattr__(name: str) -> Any:
    if name in ("LoopSubject", "Steps"):  # a diagnosis is made with JAX
        return getattr(importlib.import_module("regrow.torch.loop"), name)
    raise AttributeError(f"module 'regrow.torch' has no attribute {name!r}")
