"""The DeepMind Control Suite from pixels, as in DrQ (arXiv 2004.13649).

An observation is the last three frames of 64×64 grey bytes, one per env step and oldest first; an
episode begins with its first frame three times. This is the setting of the primacy-bias paper
(Nikishin et al. 2022, arXiv 2205.07802; jaxrl): camera 0, or 2 for a quadruped, and luminance
rounded down. The action repeat is that of PlaNet (arXiv 1811.04551) for six tasks, and 2 elsewhere.

MuJoCo renders in software where there is no graphics card, and most of that time goes into shadows,
reflections and antialiasing. They are fields and off by default: the same scene, with a darker
floor, ten times as fast. With all three on, a frame equals that of dm_control, pixel by pixel.
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
    """A task of the DeepMind Control Suite from pixels, as in pixels/walker-walk; needs dm_control.

    `task`: domain and task, joined by a hyphen. `action_repeat`: control steps per env step, whose
    rewards are summed; None is the published number for the task. `shadows`, `reflections` and
    `smooth_edges` (antialiasing): whether to render them, as dm_control does.
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
        """The last three frames, oldest first."""
        return (SIDE, SIDE, STACKED)

    @property
    def frames(self) -> int:
        """Three, one channel each."""
        return STACKED

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """uint8."""
        return np.dtype(np.uint8)

    @property
    def action_space(self) -> Continuous:
        """One number per actuator; −1 and 1 are the bounds of its range."""
        return Continuous(facts("pixels", self.task).actions)

    @property
    def snapshot_size(self) -> int:
        """The bytes of the simulation and of the frames."""
        return facts("pixels", self.task).snapshot + SIDE * SIDE * STACKED

    def simulator(self) -> Simulator:
        """A new simulation.

        Raises `RegrowError` if dm_control, something to render with, or the task is missing.
        """
        return _Filmed(self)


class _Filmed(Simulator):
    """One environment of the suite, with a camera."""

    def __init__(self, options: Pixels):
        self._suite = Suite("pixels", options.task, options.repeat)
        self._camera = Camera(self._suite.physics, options)
        self._pictures: deque[NDArray[np.uint8]] = deque(maxlen=STACKED)

    def reset(self, seed: int) -> NDArray[Any]:
        """The first frame of an episode started from `seed`, three times."""
        self._suite.reset(seed)
        self._pictures.extend([grey(self._camera.picture())] * STACKED)
        return self._seen()

    def step(self, action: NDArray[Any]) -> HostStep:
        """The frames after the repeated control steps of one env step."""
        step = self._suite.step(action)
        self._pictures.append(grey(self._camera.picture()))
        return step._replace(observation=self._seen())

    def close(self) -> None:
        """Closes the camera, then the simulation that it renders."""
        self._camera.close()
        self._suite.close()

    def snapshot(self) -> NDArray[np.uint8]:
        """The snapshot of the simulation, then the frames."""
        return np.concatenate([self._suite.snapshot(), self._seen().reshape(-1)])

    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """Continues from where the snapshot was taken."""
        simulation, seen = np.split(snapshot, [-SIDE * SIDE * STACKED])
        self._suite.restore(simulation)
        self._pictures.extend(np.moveaxis(seen.reshape(SIDE, SIDE, STACKED), -1, 0))

    def _seen(self) -> NDArray[np.uint8]:
        return np.stack(self._pictures, axis=-1)


class Camera:
    """A camera of a simulation, rendered off screen by MuJoCo.

    `mujoco.Renderer` does the same, but uses the MUJOCO_GL that was set when `mujoco` was first
    imported; if none was set, it needs a display.
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
        # The graphics library raises many kinds of errors; all mean that there is nothing to render
        # with.
        try:
            self._screen, self._context = self._opened()
        except Exception as error:
            raise RegrowError(
                f"pixels/{options.task} has nothing to draw with ({' '.join(str(error).split())}); "
                "try: apt install libegl1 libgl1-mesa-dri, or libosmesa6 and MUJOCO_GL=osmesa"
            ) from error
        # Also at the end of the process, and before the graphics library: last in, first out.
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
        """(an OpenGL context without a window, MuJoCo's rendering context in it)."""
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
        """The current image in colour, first row at the top; shape (64, 64, 3)."""
        mujoco, out = self._mujoco, np.empty((SIDE, SIDE, 3), np.uint8)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, self._data, mujoco.MjvOption(), None, self._view, everything, self._scene
        )
        self._screen.make_current()
        for terrain in range(self._model.nhfield):  # it changes with every episode
            mujoco.mjr_uploadHField(self._model, self._context, terrain)
        mujoco.mjr_render(self._frame, self._scene, self._context)
        mujoco.mjr_readPixels(out, None, self._frame, self._context)
        return out[::-1]  # OpenGL's first row is at the bottom


def _closed(screen: Any, context: Any) -> None:
    """Frees what a camera holds, in its own context: elsewhere the same ids belong to others."""
    screen.make_current()
    context.free()
    screen.free()


def grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luminance of an image, rounded down; shape (height, width)."""
    weighted = picture.astype(np.int32) @ np.array([299, 587, 114], np.int32)
    return (weighted // 1_000).astype(np.uint8)
