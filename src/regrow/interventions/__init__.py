"""One file each: `regrow.interventions.Inject` and its like are found by walking this package."""

from regrow.registry import exports

__getattr__, __dir__ = exports("interventions")
