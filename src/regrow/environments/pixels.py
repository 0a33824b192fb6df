"""The DeepMind Control Suite seen through a camera, as DrQ sees it (arXiv 2004.13649).

An observation is the last three pictures of 64×64 grey bytes, one per env step and oldest first; an
episode begins with its first picture three times. So the runs of the primacy-bias work have it
(Nikishin et al. 2022, arXiv 2205.07802; jaxrl): camera 0, or 2 of a quadruped, and luminance
rounded down. An action is repeated as PlaNet does (arXiv 1811.04551) for six tasks and twice
elsewhere.

MuJoCo draws in software where there is no graphics card, and most of that time goes into shadows,
reflections and smooth edges. They are fields and off: the same scene, with a darker floor, at ten
times the rate. With all three on a picture is that of dm_control, pixel by pixel.
"""

import atexit
import importlib
import os
import platform
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from regrow.environments.base import HostEnvironment, HostStep, Simulator
from regrow.environments.suite.base import Suite, facts
from regrow.errors import RegrowError, require
from regrow.types import Continuous

SIDE, STACKED = 64, 3
ELSEWHERE = 2
PLANET_REPEATS = {
    "cartpole-swingup": 8,
    "reacher-easy": 4,
    "cheetah-run": 4,
    "finger-spin": 2,
    "ball_in_cup-catch": 4,
    "walker-walk": 2,
}


@dataclass(frozen=True)
class Pixels(HostEnvironment):
    """A task of the DeepMind Control Suite in pictures, as in pixels/walker-walk; needs dm_control.

    `task`: domain and task, joined by a hyphen. `action_repeat`: control steps per env step, whose
    rewards are summed; None is what was published for the task. `shadows`, `reflections` and
    `smooth_edges` (antialiasing): whether to draw them, as dm_control does.
    """

    named_by: ClassVar[str] = "task"

    task: str = "walker-walk"
    action_repeat: int | None = None
    shadows: bool = False
    reflections: bool = False
    smooth_edges: bool = False

    def __post_init__(self) -> None:
        require(self.repeat >= 1, f"action_repeat is {self.action_repeat}; it must be at least 1")

    @property
    def repeat(self) -> int:
        """Control steps per env step."""
        if self.action_repeat is None:
            return PLANET_REPEATS.get(self.task, ELSEWHERE)
        return self.action_repeat

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The last three pictures, oldest first."""
        return (SIDE, SIDE, STACKED)

    @property
    def frames(self) -> int:
        """The pictures."""
        return STACKED

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """Bytes."""
        return np.dtype(np.uint8)

    @property
    def action_space(self) -> Continuous:
        """A number per actuator; −1 and 1 are the ends of its range."""
        return Continuous(facts("pixels", self.task).actions)

    @property
    def snapshot_size(self) -> int:
        """What the simulation needs, and the pictures."""
        return facts("pixels", self.task).snapshot + SIDE * SIDE * STACKED

    def simulator(self) -> Simulator:
        """A new simulation.

        Raises `RegrowError` without dm_control or anything to draw with, or where there is no such
        task.
        """
        return _Filmed(self)


class _Filmed(Simulator):
    """One environment of the suite, and a camera in it."""

    def __init__(self, options: Pixels):
        self._suite = Suite("pixels", options.task, options.repeat)
        self._camera = Camera(self._suite.physics, options)
        self._pictures: deque[NDArray[np.uint8]] = deque(maxlen=STACKED)

    def reset(self, seed: int) -> NDArray[Any]:
        """The first picture of an episode drawn from `seed`, three times."""
        self._suite.reset(seed)
        self._pictures.extend([grey(self._camera.picture())] * STACKED)
        return self._seen()

    def step(self, action: NDArray[Any]) -> HostStep:
        """The pictures after as many control steps as an action is repeated."""
        step = self._suite.step(action)
        self._pictures.append(grey(self._camera.picture()))
        return step._replace(observation=self._seen())

    def close(self) -> None:
        """Gives back the camera, then the simulation that it draws."""
        self._camera.close()
        self._suite.close()

    def snapshot(self) -> NDArray[np.uint8]:
        """That of the simulation, then the pictures."""
        return np.concatenate([self._suite.snapshot(), self._seen().reshape(-1)])

    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """Goes on where the snapshot was taken."""
        simulation, seen = np.split(snapshot, [-SIDE * SIDE * STACKED])
        self._suite.restore(simulation)
        self._pictures.extend(np.moveaxis(seen.reshape(SIDE, SIDE, STACKED), -1, 0))

    def _seen(self) -> NDArray[np.uint8]:
        return np.stack(self._pictures, axis=-1)


class Camera:
    """What a camera of a simulation sees, drawn by MuJoCo off screen.

    `mujoco.Renderer` does the same, with whatever MUJOCO_GL said when `mujoco` was first imported:
    where that was nothing it needs a screen.
    """

    def __init__(self, physics: Any, options: Pixels):
        self._mujoco: Any = importlib.import_module("mujoco")
        self._model, self._data = physics.model.ptr, physics.data.ptr
        look = self._model.vis
        look.global_.offwidth = look.global_.offheight = SIDE
        if not options.shadows:
            look.quality.shadowsize = 0
        if not options.smooth_edges:
            look.quality.offsamples = 0
        # Of the graphics library's making are many errors; all say that there is none to draw with.
        try:
            self._screen, self._context = self._opened()
        except Exception as error:
            raise RegrowError(
                f"pixels/{options.task} has nothing to draw with ({' '.join(str(error).split())}); "
                "try: apt install libegl1 libgl1-mesa-dri, or libosmesa6 and MUJOCO_GL=osmesa"
            ) from error
        # At the end of the process too, and ahead of the graphics library: last in, first out.
        self.close = weakref.finalize(self, _closed, self._screen, self._context)
        self.close.atexit = False
        atexit.register(self.close)
        self._scene = self._mujoco.MjvScene(self._model, maxgeom=10_000)
        self._scene.flags[self._mujoco.mjtRndFlag.mjRND_REFLECTION] = options.reflections
        self._view = self._mujoco.MjvCamera()
        self._view.type = self._mujoco.mjtCamera.mjCAMERA_FIXED
        self._view.fixedcamid = 2 if options.task.startswith("quadruped-") else 0
        self._frame = self._mujoco.MjrRect(0, 0, SIDE, SIDE)

    def _opened(self) -> tuple[Any, Any]:
        """(an OpenGL context without a window, what MuJoCo keeps there)."""
        usual = {"Linux": "egl", "Darwin": "cgl"}.get(platform.system(), "glfw")
        library = importlib.import_module(f"mujoco.{os.environ.get('MUJOCO_GL') or usual}")
        screen = library.GLContext(SIDE, SIDE)
        screen.make_current()
        context = self._mujoco.MjrContext(
            self._model, self._mujoco.mjtFontScale.mjFONTSCALE_100.value
        )
        self._mujoco.mjr_setBuffer(self._mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, context)
        return screen, context

    def picture(self) -> NDArray[np.uint8]:
        """What is seen now, in colours, its first row at the top; shape (64, 64, 3)."""
        mujoco, out = self._mujoco, np.empty((SIDE, SIDE, 3), np.uint8)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, self._data, mujoco.MjvOption(), None, self._view, everything, self._scene
        )
        self._screen.make_current()
        for terrain in range(self._model.nhfield):  # another one in every episode
            mujoco.mjr_uploadHField(self._model, self._context, terrain)
        mujoco.mjr_render(self._frame, self._scene, self._context)
        mujoco.mjr_readPixels(out, None, self._frame, self._context)
        return out[::-1]  # OpenGL's first row is at the bottom


def _closed(screen: Any, context: Any) -> None:
    """Gives back what a camera held, in its own place: elsewhere the same numbers mean others'."""
    screen.make_current()
    context.free()
    screen.free()


def grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luminance of a picture, rounded down; shape (height, width)."""
    weighted = picture.astype(np.int32) @ np.array([299, 587, 114], np.int32)
    return (weighted // 1_000).astype(np.uint8)
