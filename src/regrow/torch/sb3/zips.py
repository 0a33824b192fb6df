"""Models from zip files of Stable-Baselines3, and what lies beside them.

A zip holds pickles, and reading a pickle can run any code. So they are read by an unpickler that
knows a list of harmless classes only (`HARMLESS`). Where a file needs more, that is said, and done
only where the user trusts the file.
"""

import base64
import enum
import importlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regrow.errors import RegrowError, UntrustedError, in_a_line, require
from regrow.torch.saving import repeat
from regrow.torch.sb3.algorithms import ALGORITHMS

_SPACES = "Space Box Discrete MultiDiscrete MultiBinary Dict Tuple"
_POLICIES = "MlpPolicy CnnPolicy MultiInputPolicy ActorCriticPolicy ActorCriticCnnPolicy "
HARMLESS: Mapping[str, str] = {
    "builtins": "dict list tuple set frozenset bytearray complex int float str bool slice object",
    "collections": "deque OrderedDict",
    "copyreg": "_reconstructor __newobj__",
    "gymnasium.spaces.space": _SPACES,
    "gymnasium.spaces.box": _SPACES,
    "gymnasium.spaces.discrete": _SPACES,
    "gymnasium.spaces.multi_discrete": _SPACES,
    "gymnasium.spaces.multi_binary": _SPACES,
    "gymnasium.spaces.dict": _SPACES,
    "gymnasium.spaces.tuple": _SPACES,
    "numpy": "ndarray dtype bool float32 float64 int32 int64 uint8 int8 bool_",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "numpy.random._pickle": "__generator_ctor __bit_generator_ctor __randomstate_ctor",
    "numpy.random._pcg64": "PCG64",
    "numpy.random._mt19937": "MT19937",
    "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
    "stable_baselines3.common.buffers": "ReplayBuffer DictReplayBuffer NStepReplayBuffer "
    "RolloutBuffer DictRolloutBuffer",
    "stable_baselines3.common.noise": "NormalActionNoise OrnsteinUhlenbeckActionNoise "
    "VectorizedActionNoise",
    "stable_baselines3.common.policies": f"{_POLICIES} MultiInputActorCriticPolicy",
    "stable_baselines3.common.torch_layers": "NatureCNN FlattenExtractor CombinedExtractor",
    "stable_baselines3.common.type_aliases": "TrainFreq TrainFrequencyUnit",
    "stable_baselines3.common.utils": "FloatSchedule ConstantSchedule LinearSchedule",
    "stable_baselines3.common.running_mean_std": "RunningMeanStd",
    "stable_baselines3.common.sb2_compat.rmsprop_tf_like": "RMSpropTFLike",
    "stable_baselines3.common.vec_env.vec_normalize": "VecNormalize",
    "stable_baselines3.dqn.policies": f"{_POLICIES} DQNPolicy",
    "stable_baselines3.sac.policies": f"{_POLICIES} SACPolicy",
    "stable_baselines3.td3.policies": f"{_POLICIES} TD3Policy",
    "sb3_contrib.qrdqn.policies": f"{_POLICIES} QRDQNPolicy",
    "sb3_contrib.tqc.policies": f"{_POLICIES} TQCPolicy",
    "torch": "device",
    "torch.nn.modules.activation": "ReLU Tanh ELU GELU SiLU LeakyReLU Sigmoid Mish CELU SELU",
    "torch.optim.adam": "Adam",
    "torch.optim.adamw": "AdamW",
    "torch.optim.rmsprop": "RMSprop",
    "torch.optim.sgd": "SGD",
}
"""Classes that a file may name: reading them sets attributes and runs nothing else."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) == ("builtins", "getattr"):
            return _member
        if global_name not in HARMLESS.get(module_name, "").split():
            raise UntrustedError(f"{module_name}.{global_name}")
        return getattr(importlib.import_module(module_name), global_name)


def _member(kind: Any, name: Any) -> Any:
    """The member of an enumeration, which early releases of Python 3.11 get by `getattr`."""
    if not (isinstance(kind, enum.EnumMeta) and name in kind.__members__):
        raise UntrustedError("builtins.getattr")
    return kind.__members__[name]


def read_pickle(content: bytes, where: str, *, trust: bool) -> Any:
    """What a pickle holds.

    Raises `RegrowError` where it names what is not known to be harmless, unless it is trusted.
    """
    try:
        return (pickle.loads if trust else _loads)(content)
    except UntrustedError as error:
        raise UntrustedError(
            f"{where} holds {error}, which is code of its own: reading it runs that code. If you "
            "trust the file, add --trust"
        ) from error
    except Exception as error:  # a damaged pickle, or a class that raises
        raise RegrowError(f"{where} cannot be read: {in_a_line(error)}") from error


def _loads(content: bytes) -> Any:
    return _Unpickler(io.BytesIO(content)).load()


def load_model(path: Path, environments: Any, *, trust: bool = False) -> Any:
    """The model of a zip, with these environments (a VecEnv), its injected heads included.

    Raises `RegrowError` for a file that is no model, of an unknown algorithm or a newer version of
    Stable-Baselines3, that does not fit the environments, or that must be trusted first.
    """
    data = _data(path)
    kind = _class_of(path, data)
    objects = _objects(path, data, trust=trust)

    try:
        return load_injected(kind, path, env=environments, device="cpu", custom_objects=objects)
    except RegrowError:
        raise
    except Exception as error:
        raise RegrowError(f"{path} and its environment do not fit: {in_a_line(error)}") from error


def load_injected(algorithm: Any, path: str | Path, **options: Any) -> Any:
    """`algorithm.load(path, …)`, which repeats injections before it takes up parameters.

    By itself `load` builds the networks as they were at first, and refuses the parameters.
    """

    class Loaded(algorithm):
        """The algorithm while it is loaded."""

        def set_parameters(self, params: Any, *given: Any, **named: Any) -> None:
            if isinstance(params, dict) and "policy" in params:
                repeat(self.policy, params["policy"])
            super().set_parameters(params, *given, **named)

    model = Loaded.load(path, **options)
    model.__class__ = algorithm
    return model


def number_of_environments(path: Path) -> int:
    """How many environments the model of a zip was trained in."""
    count = _data(path).get("n_envs", 1)
    return count if isinstance(count, int) and count > 0 else 1


def _data(path: Path) -> dict[str, Any]:
    require(path.is_file(), f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            held = archive.read("data") if "data" in names else None
            version = "_stable_baselines3_version"
            told = archive.read(version).decode() if version in names else ""
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
        raise RegrowError(f"{path} is no zip of Stable-Baselines3: {in_a_line(error)}") from error
    require(held is not None, f"{path} is a zip, but not of Stable-Baselines3: it holds no 'data'")
    _require_known_version(path, told.strip())
    try:
        data = json.loads(held or b"")
    except ValueError as error:
        raise RegrowError(f"{path} is damaged: {in_a_line(error)}") from error
    require(isinstance(data, dict), f"{path} is damaged: its 'data' is no object")
    return data


def _require_known_version(path: Path, told: str) -> None:
    import stable_baselines3

    ours, theirs = (
        tuple(int(part) for part in re.findall(r"\d+", text)[:2])
        for text in (stable_baselines3.__version__, told)
    )
    require(
        theirs <= ours,
        f"{path} was written by Stable-Baselines3 {told}, and {stable_baselines3.__version__} is "
        "installed; install that version, or a newer one",
    )


_MARKS = (  # the first whose fields are all there
    ("TRPO", ("cg_max_steps",)),
    ("ARS", ("n_delta",)),
    ("RecurrentPPO", ("_last_lstm_states",)),
    ("MaskablePPO", ("_last_action_masks",)),
    ("CrossQ", ("ent_coef", "policy_delay")),
    ("TQC", ("top_quantiles_to_drop_per_net",)),
    ("SAC", ("ent_coef", "target_entropy")),
    ("TD3", ("target_policy_noise",)),
    ("QRDQN", ("exploration_fraction", "n_quantiles")),
    ("DQN", ("exploration_fraction",)),
    ("PPO", ("clip_range", "n_epochs")),
    ("A2C", ("gae_lambda", "normalize_advantage")),
)


def _class_of(path: Path, data: Mapping[str, Any]) -> type[Any]:
    """The class of the algorithm, which a zip does not name: by the fields that it has."""
    policy = data.get("policy_class")
    place = str(policy.get("__module__", "")) if isinstance(policy, dict) else ""
    names = {*data, *(["n_quantiles"] if "qrdqn" in place else [])}
    found = next((name for name, marks in _MARKS if names >= set(marks)), "")
    if found == "TD3" and (data.get("policy_kwargs") or {}).get("n_critics") == 1:
        found = "DDPG"
    require(
        found in ALGORITHMS,
        f"{path} holds a model of {found or 'an unknown algorithm'}; regrow knows "
        f"{', '.join(ALGORITHMS)}",
    )
    package = "sb3_contrib" if found in ("QRDQN", "TQC") else "stable_baselines3"
    try:
        return getattr(importlib.import_module(package), found)
    except ImportError as error:
        raise RegrowError(
            f"{path} is of {found}, which needs {package}: pip install 'regrow[sb3]'"
        ) from error


_NOT_NEEDED = ("_last_obs", "_last_episode_starts", "_last_original_obs")
"""The environment begins anew: it is not in the zip."""


def _objects(path: Path, data: Mapping[str, Any], *, trust: bool) -> dict[str, Any]:
    """What the zip holds as pickles, so that nothing else needs to read them."""
    found = dict[str, Any]()
    for name, item in data.items():
        if name in _NOT_NEEDED:
            found[name] = None
        elif isinstance(item, dict) and ":serialized:" in item:
            try:
                content = base64.b64decode(str(item[":serialized:"]), validate=True)
            except ValueError as error:
                raise RegrowError(f"{path} is damaged at '{name}': {in_a_line(error)}") from error
            found[name] = read_pickle(content, f"{path}, '{name}'", trust=trust)
    return found


def beside(path: Path) -> tuple[Path | None, Path | None]:
    """(the replay buffer, the statistics of VecNormalize) that lie beside a zip, if they do.

    By the names that Stable-Baselines3 gives them: `model_replay_buffer.pkl`,
    `rl_model_replay_buffer_1000_steps.pkl`, `replay_buffer.pkl`, and the same with `vecnormalize`.
    """

    def found(what: str) -> Path | None:
        stem = path.stem
        names = [f"{stem}_{what}.pkl", f"{what}.pkl"]
        match = re.fullmatch(r"(.*)_(\d+)_steps", stem)
        if match:
            names.insert(0, f"{match[1]}_{what}_{match[2]}_steps.pkl")
        there = [path.with_name(name) for name in names]
        return next((one for one in there if one.is_file()), None)

    return found("replay_buffer"), found("vecnormalize")


def load_beside(model: Any, path: Path, *, trust: bool = False) -> bool:
    """Gives a model the replay buffer beside its zip; whether there was one."""
    replay, _ = beside(path)
    if replay is None or not hasattr(model, "replay_buffer"):
        return False
    held = read_pickle(replay.read_bytes(), str(replay), trust=trust)
    ours = model.replay_buffer
    for name in ("obs_shape", "action_dim", "n_envs"):
        require(
            getattr(held, name, None) == getattr(ours, name),
            f"{replay} does not belong to {path}: its {name} is {getattr(held, name, None)}, that "
            f"of the model {getattr(ours, name)}",
        )
    held.device = model.device
    model.replay_buffer = held
    return True


def normalized(environments: Any, path: Path, *, trust: bool = False) -> Any:
    """Environments in the VecNormalize beside a zip, if there is one."""
    _, statistics = beside(path)
    if statistics is None:
        return environments
    held = read_pickle(statistics.read_bytes(), str(statistics), trust=trust)
    try:
        held.set_venv(environments)
    except (AttributeError, AssertionError, ValueError) as error:
        raise RegrowError(f"{statistics} does not fit: {in_a_line(error)}") from error
    return held
