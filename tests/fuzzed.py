"""Command lines and configurations drawn at random, most of them wrong."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from regrow.cli import entry
from regrow.files.atomic import sealed


def several(text: str) -> list[str]:
    return text.split()


DIGITS = "9" * 5_000
ODD = several(
    "- -- ---x = é 名前 \x1b[31m \x07 ' \" %s %(prog)s {} \udcff ( ) \\ # None nan * @file"
)
ODD += ["", " ", "\u2028", "a\nb", "\t", "\x85", "a\x0bb", "x" * 300, "y" * 5_000, "../x", "~", "."]
NUMBERS = several("""-1 0 1 3 40 200 1e3 1e999 1e-999 nan inf -inf 0x10 ٣ 1_0 _ 1.5 1k +5 -0 ½ . 1e
1M 2147483644 2147483648 -2147483649 1e99999999999999999999 1e-99999999999999999999""")
NUMBERS += [DIGITS]
LITERALS = several("""None True 'a' [1] {} {'a':1} b'x' 1j -'a' 1e400 *a **a lambda:1 f() '\\x00'
'''a {[]} l2_init (l2_init,l2) 'l2+l2_init'""")
DEEP = ["-" * 9_000 + "1", "not " * 9_000 + "1", "(" * 60 + ")" * 60, "[" * 300 + "]" * 300]
LITERALS += [*NUMBERS, *DEEP, "0x" + "f" * 5_000]
ENVIRONMENTS = several("""toy/action_reward minatar/breakout toy/reach minatar/brekout jax/:
jax/os:path jax/json:loads jax/a.b:c jax/broken:x gymnasium/x:Y-v0 gymnasium/CartPole-v1
gymnasium/Nope-v0 gymnasium/ control/x-y atari/x broken:Maze json:loads nowhere:Maze a..b:c x.:y
regrow.errors:x shifting/switched_games shifting/permuted_observations""")
AGENTS = several("""double_dqn ppo sac drq double_dqn:young_tian_2019 drq:laptop duble_dqn
double_dqn: double_dqn:x broken:Agent json:loads ppo/x a.b.c broken:""")
CURES = several("""nothing again inject reset fit_noise shrink_perturb widen redo deaden injct
broken:Cure hare_tortoise inject/x inject:x""")
PROBES = several("dead_units returns srank ded_units trainability a.b srank.head broken:Probe")
FIELDS = several("""hidden learning_rate gradient split replay_capacity num_envs x shrink redraw
optimizer batch_size kwargs only discount max_episode_steps game games period factor""")
PLACES = several("""run file.txt empty others altered nowhere file.txt/x /proc/regrow ftp://a/b ://
s3:// s3://[ gs://a/b file:// file:///proc/x run/run.ckpt nö/ñ http://[::1 S3://a/b
altered/plans""")
PLACES += ["no\x01/x", "a b", "x" * 300]
ZIPS = several("""bad.zip nowhere.zip plain.zip script.py:make script.py:no script.py:raises
broken.py:make nowhere.py:make empty.py:make script.py: folder.zip .zip""")
SLURM = ["partition=gpu", "=", "a=", "=b", f"timeout_min={DIGITS}", "gpu", "a=٣", "cluster=local"]
MANGLED = [None, True, -1, 1e999, "", "x", [], {}, [[]], [1, "a"], {"a": {}}, "\ud800", 2**70]


class Case(NamedTuple):
    """A command line, and the files that are in the folder `altered` meanwhile."""

    arguments: list[str]
    files: dict[str, bytes]


def case(number: int) -> Case:
    """The case of a number; to be called in the folder `made` of test_fuzz.py."""
    draw = random.Random(number)
    files = altered(draw) if draw.random() < 0.3 else {}
    return Case(command(draw, "altered" if files else ""), files)


def command(draw: random.Random, folder: str) -> list[str]:
    """A command with arguments, some of which may be right. `folder`: what it most likely reads."""

    def one_of(*lists: list[str]) -> Callable[[], str]:
        return lambda: draw.choice(draw.choice(lists))

    def place() -> str:
        return folder if folder and draw.random() < 0.7 else draw.choice([*PLACES, *ODD[:9]])

    def what() -> str:
        return draw.choice([environment, environment, one_of(ZIPS), place])()

    def environment() -> str:
        return call(draw, ENVIRONMENTS)

    def rule() -> str:
        return a_rule(draw)

    number = one_of(NUMBERS, NUMBERS, ODD)
    where = one_of(several("local ray slurm slurm ray:// ray://x:y Local kubernetes"), ODD[:3])
    runs = {"--processes": number, "--on": where, "--gpus": number, "--slurm": one_of(SLURM)}
    shared = {"--agent": lambda: call(draw, AGENTS), "--out": place, "--env-steps": number}
    shared["--log"] = one_of(["csv", "tensorbord", "csv,csv", "Wandb"], ODD)
    numbers = "--fork-at --horizon --seeds --replicates --minutes --smallest-effect --range --total"
    whole = {**shared, **runs, **dict.fromkeys(numbers.split(), number), "--arms": rule}
    whole |= {
        "--before": lambda: call(draw, CURES),
        "--env": one_of(["CartPole-v1", "script.py:make"], ODD),
    }
    training = {**shared, "--seed": number, "--do": rule, "--probe-every": number}
    study = {**runs, "--scale": one_of(["smoke", "x", ""]), "--out": place, "--curves": place}
    study |= {"--at": number, "--without": one_of(ODD)}
    studies = one_of(several("pace resets resets all pase primacy-bias"), ODD[:4])
    pictures = {"--out": one_of(["c.png", "c.xyz", "c", "run"], ODD)}
    exports = {"--to": one_of(["parquet", "tensorboard", "x"]), "--into": place}
    options = {
        "diagnose": (what, whole, ["--fixed", "--where", "--trust"]),
        "train": (environment, training, ["--resume"]),
        "study": (studies, study, []),
        "watch": (place, {}, ["--once"]),
        "report": (place, {}, ["--figures"]),
        "probe": (place, {}, ["--costly"]),
        "evaluate": (place, {"--episodes": number, "--seed": number}, []),
        "curves": (place, pictures, []),
        "export": (place, exports, []),
        "check": (environment, {"--env-steps": number}, []),
        "list": (one_of(list(entry.FAMILIES), ODD), {}, []),
        "demo": (None, {"--out": place, "--processes": number}, []),
    }
    reads = several("watch report probe evaluate curves export diagnose study")
    name = draw.choice(reads if folder else list(options))
    positional, named, flags = options[name]
    line = [positional()] if positional and draw.random() < 0.95 else []
    line += [positional()] if positional and draw.random() < 0.1 else []
    for option in draw.sample(list(named), min(len(named), draw.choice([0, 1, 1, 2, 3, 5]))):
        joined = draw.random() < 0.5
        line += [f"{option}={named[option]()}"] if joined else [option, named[option]()]
        if option in ("--arms", "--range") and not joined:
            line += [named[option]() for _ in range(draw.randrange(3))]
    line += [flag for flag in flags if draw.random() < 0.4]
    line += [draw.choice([*ODD, "--help", "--seed", "--o"])] if draw.random() < 0.1 else []
    misspelt = draw.choice([name[1:], name.upper(), f"{name} ", *ODD])
    line = [name if draw.random() < 0.95 else misspelt, *line]
    # Nothing may ask an object store: what is wrong is found while the line is read.
    return [*line, "--no-such-option"] if any(":/" in word for word in line) else line


def call(draw: random.Random, names: list[str], depth: int = 2) -> str:
    """A text of the grammar, or nearly."""
    name = draw.choice(names if draw.random() < 0.9 else ODD)
    if draw.random() < 0.5:
        return name
    fields = []
    for _ in range(draw.choice([0, 1, 1, 2])):
        nested = depth and draw.random() < 0.2
        value = call(draw, names, depth - 1) if nested else draw.choice(LITERALS)
        fields.append(f"{draw.choice(FIELDS)}={value}")
    text = f"{name}({', '.join(fields)})"
    if draw.random() < 0.1:  # one sign more, less, or another
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice(["", "(", ")", ",", "=", "\x01", "é"]) + text[at + 1 :]
    return text


def a_rule(draw: random.Random) -> str:
    """An intervention, or a rule, or nearly."""
    n, beside = lambda: draw.choice(NUMBERS), draw.choice(["above", "below", "beside"])
    beyond = f"when {draw.choice(PROBES)} {beside} {n()}"
    when = ["", f"at {n()}", f"every {n()}", beyond, "when returns plateau", "at noon", "when"]
    ends = ["", f"for {n()} checks", f"at most {n()} times", f"checked every {n()}"]
    return f"{call(draw, CURES)} {draw.choice(when)} {draw.choice(ends)}".strip()


def altered(draw: random.Random) -> dict[str, bytes]:
    """A configuration and a plan, each with a value that is none, or broken otherwise."""
    config = {"format": 2, "kind": draw.choice(["training", "diagnosis", "x"]), "seed": 0}
    config |= {"agent": "double_dqn", "environment": "toy/action_reward", "rules": ["reset at 40"]}
    arms = [["nothing", "nothing", 0, ""], ["inject", "inject", 0, ""]]
    condition = {"label": "a", "axis": "", "level": None, "environment": "e", "agent": "a"}
    condition |= {"before": [], "fork_at": 40, "horizon": 80, "arms": arms, "seeds": 2}
    plan = {"format": 2, "study": "diagnosis", "scale": "", "conditions": [condition]}
    files = {"config.json": mangled(draw, config), "plans/diagnosis--.json": mangled(draw, plan)}
    files |= {"rows/a.parquet": b"PAR1"} if draw.random() < 0.3 else {}
    held = [
        name for name in ("run.ckpt", "episodes.parquet", "probes.parquet") if draw.random() < 0.6
    ]
    return files | {name: Path("run", name).read_bytes() for name in held}


def mangled(draw: random.Random, content: dict) -> bytes:
    """JSON of which one thing, at any depth, is something else."""
    content = json.loads(json.dumps(content))
    at, going = content, True
    while going:
        key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
        going = isinstance(at[key], dict | list) and bool(at[key]) and draw.random() < 0.7
        at = at[key] if going else at
    at[key] = draw.choice(MANGLED)
    if draw.random() < 0.2 and isinstance(at, dict):
        del at[key]
    text = json.dumps(content).encode()
    if draw.random() < 0.2:
        return draw.choice([text[:-9], b"", b"[" * 9_000, b"[]", b"null", b"\xff", b'"x"', b"{}"])
    return sealed(content) if draw.random() < 0.2 else text
