"""`measure`: probes of a PyTorch module, as `Run.measure` has them for agents of this library."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from regrow.errors import require
from regrow.torch import heads as _heads
from regrow.torch.catalogue import NEEDS, PROBES, Asked, default, read
from regrow.torch.formulas import NOTHING_THERE
from regrow.torch.fresh import seeded
from regrow.torch.heads import unwrapped
from regrow.torch.layers import Forward
from regrow.torch.optimizers import Optimizers, as_list
from regrow.torch.view import Earlier, Loss, Update, View


def measure(
    module: nn.Module,
    inputs: Any,
    *,
    at: str | Sequence[str] | None,
    probes: Sequence[str] = (),
    forward: Forward | None = None,
    loss: Loss | None = None,
    update: Update | None = None,
    optimizer: Optimizers = None,
    initial: Earlier = None,
    previous: Earlier = None,
    costly: bool = False,
    seed: int | None = 0,
) -> dict[str, float]:
    """Probe values of a module by name: `dead_units.head`, `policy_churn.network`.

    `at`: where the head begins, as in `inject`; None if the module is all head. The encoder is the
    rest of the module. `inputs`: a batch, of which a tuple are the positional arguments. `forward`:
    calls the module on them, `forward(module, inputs)`; by default `module(*inputs)`. `probes`:
    which to measure, by name, `"dead_units"` (of the head), `"dead_units.encoder"`,
    `"dormant_units.head(tau=0.1)"`; by default all for which enough is given, the costly ones only
    with `costly=True`. All are those of `regrow.probes`.

    `loss`: a function of the module that returns the losses of the samples, of shape (samples,);
    the loss of the batch is their mean. A number will do for `gradient_norm` and `curvature`.
    `optimizer`: the one that trains the module, or a list; copies of it train copies of the module.
    `update`: makes one update of a copy in place, on other samples than the first half of the
    inputs, on which churn is measured; by default a step of the optimizer on the losses of the
    second half. `policy_churn` takes outputs of shape (samples, actions) for preferences among
    discrete actions. `initial`, `previous`: earlier copies of the module, or state dicts. `seed`:
    of all random numbers, those that `loss` and `update` draw included.

    The module is measured in eval mode and is not changed; an update runs in the mode that the
    module has. Frozen heads are part of the output, not of parameters or units. In
    `gradient_dormancy` the pre-activation is taken after normalisation by a module of its own. A
    value is NaN where there is nothing to measure, the earlier architecture differs, or numbers are
    not finite. Raises `RegrowError` for an unknown name, a probe asked for by name without what it
    needs, and a loss that is none.
    """
    root = unwrapped(module)
    found = None if at is None else _heads.named(root, at)
    view = View(root, inputs, found, forward, loss, update, as_list(optimizer), initial, previous)
    with seeded(seed), torch.enable_grad():
        asked = {text: read(text) for text in probes} or _every(view, costly=costly)
        for text, (_, probe, _) in asked.items():
            for need in probe.needs:
                there, what = NEEDS[need]
                require(there(view), f"'{text}' needs {what}")
        finite = view.is_finite()
    values = dict[str, float]()
    for text, (part, probe, fields) in asked.items():
        with seeded(seed), torch.enable_grad():
            given = {"part": part, **fields} if probe.parts else fields
            values[text] = float(probe.measure(view, **given)) if finite else NOTHING_THERE
    return values


def _every(view: View, *, costly: bool) -> dict[str, Asked]:
    """All probes with default fields for which enough is given."""
    found = dict[str, Asked]()
    for name, probe in PROBES.items():
        if (costly or not probe.costly) and all(NEEDS[need][0](view) for need in probe.needs):
            for part in ("encoder", "head") if probe.parts else ("network",):
                found[f"{name}.{part}"] = (part, probe, default(probe))
    return found
