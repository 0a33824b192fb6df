"""One file each: `regrow.agents.DoubleDQN` and its like are found by walking this package."""

from regrow.registry import exports

__getattr__, __dir__ = exports("agents")
