"""For users of Stable-Baselines3: the diagnosis of a model, and the cure as a callback.

verdict = regrow.sb3.diagnose(model, horizon=100_000)
model.learn(1_000_000, callback=regrow.sb3.Inject(when="dead_units above 0.3", at_most=3))
model.save("model.zip");   model = regrow.sb3.load(DQN, "model.zip", env=env)
"""

from regrow.errors import require_package as _require_package

_require_package("stable_baselines3", "regrow.sb3", "sb3")

from regrow.sb3.callbacks import Do as Do
from regrow.sb3.callbacks import Inject as Inject
from regrow.sb3.diagnosing import diagnose as diagnose
from regrow.sb3.loading import load as load
