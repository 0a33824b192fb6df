"""Interventions and measurements on PyTorch modules, in place; needs no JAX."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    from regrow.errors import RegrowError

    raise RegrowError(
        "regrow.torch needs PyTorch, which is not installed: pip install 'regrow[torch]'"
    ) from error

from regrow.torch.heads import Proposal as Proposal
from regrow.torch.heads import find_head as find_head
from regrow.torch.saving import load_state_dict as load_state_dict
from regrow.torch.surgery import Handle as Handle
from regrow.torch.surgery import inject as inject
from regrow.torch.surgery import reset as reset
from regrow.torch.surgery import reset_optimizer as reset_optimizer
from regrow.torch.surgery import shrink_perturb as shrink_perturb
