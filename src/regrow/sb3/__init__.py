"""For users of Stable-Baselines3: the diagnosis of a model, and the cure as a callback.

verdict = regrow.sb3.diagnose(model, horizon=100_000)
model.learn(1_000_000, callback=regrow.sb3.Inject(when="dead_units above 0.3", at_most=3))
model.save("model.zip");   model = regrow.sb3.load(DQN, "model.zip", env=env)
"""

from regrow.sources.sb3 import needed_package as _needed_package

_needed_package()

from regrow.sb3.callbacks import Do as Do  # noqa: E402
from regrow.sb3.callbacks import Inject as Inject  # noqa: E402
from regrow.sb3.diagnosing import diagnose as diagnose  # noqa: E402
from regrow.sb3.loading import load as load  # noqa: E402
