"""Plasticity injection into agents of other libraries: Flax NNX, Flax Linen, Equinox.

    out = h_θ(φ) + h_θ'₁(φ) − h_θ'₂(φ),     θ'₁ = θ'₂ fresh,  only φ and θ'₁ learn

This is expression 1 of Nikishin et al. 2023, arXiv 2305.15555. `regrow.nnx` itself is for Flax NNX
and works in place; `regrow.nnx.linen` and `regrow.nnx.equinox` give back new parameters. The
contract: the output is equal (`==`) at injection, as many parameters learn as before, frozen ones
stay as they are, and only fresh parameters get a fresh optimizer state.
"""

from regrow.errors import require_package as _require_package

_require_package("flax", "regrow.nnx", "flax")

from regrow.nnx import equinox as equinox
from regrow.nnx import linen as linen
from regrow.nnx.modules import Frozen as Frozen
from regrow.nnx.modules import Injected as Injected
from regrow.nnx.modules import inject as inject
from regrow.nnx.modules import reset as reset
from regrow.nnx.optimizer import Grouped as Grouped
