"""Seaquest: shoot fish and submarines, rescue divers, and surface in time for air.

The player's submarine moves in four directions and fires the way it faces. Enemies cross the eight
middle rows; submarines shoot, fish do not. An enemy that is shot is worth 1. Divers are picked up
by touch, up to six. Surfacing refills the oxygen and costs a diver; with six on board it costs
all, and is worth up to 10, by the oxygen that is left. The episode ends by touching an enemy or
its bullet, without oxygen, or by surfacing without a diver. The difficulty ramps with each
surfacing, by shorter intervals between spawns and between moves. After Young & Tian 2019 (arXiv
1903.03176).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from regrow.environments.minatar.base import (
    COLUMNS,
    ROWS,
    SIZE,
    MinAtar,
    ahead,
    behind,
    below,
    cell,
    countdown,
    entry,
    on_screen,
    planes,
    shifted,
)

LEFT, UP, RIGHT, DOWN, FIRE = 1, 2, 3, 4, 5
MAX_OXYGEN = 200
MAX_DIVERS = 6
SPAWN_INTERVAL = 20  # at the start; the ramp shortens it to 1
MOVE_INTERVAL = 5  # at the start; the ramp shortens it to 2
MIN_MOVE_INTERVAL = 2
FIRE_INTERVAL = 5
ENEMY_FIRE_INTERVAL = 10
DIVER_SPAWN_INTERVAL = 30
DIVER_MOVE_INTERVAL = 5

# Enemies are kept in a ring in the order of their spawning, each in the slot after the last. Where
# the move interval is 2, an enemy leaves the screen 29 steps after it appeared, and at most one
# appears per step: no more than 30 live at once. While the interval is longer, enemies appear every
# 15 steps at most and stay for 59: fewer still. So a slot is free when its turn comes again. A slot
# holds the last bullet of its submarine too, which fires every 11 steps. Its bullet crosses the
# screen in 10 and outruns it, so there is only one at a time, gone before the slot is used again.
NUM_ENEMIES = 32
SLOTS = np.arange(NUM_ENEMIES, dtype=np.int32)

# The player fires every 5 steps at most and a bullet is gone after 9, so when one is fired no more
# than one other flies. Divers come every 30 steps and stay for 59. Two slots hold either, the older
# first.
PAIR = 2


class Enemies(NamedTuple):
    """The ring buffer of enemies; the values in a slot without a living enemy are ignored."""

    alive: Bool[Array, " 32"]
    x: Int[Array, " 32"]
    y: Int[Array, " 32"]
    right: Bool[Array, " 32"]
    armed: Bool[Array, " 32"]  # a submarine, else a fish
    move_timer: Int[Array, " 32"]
    fire_timer: Int[Array, " 32"]
    bullet_x: Int[Array, " 32"]  # in row y; it leaves the screen to -1 or 10 and stays there


class Bullets(NamedTuple):
    """The player's bullets, the older first."""

    alive: Bool[Array, " 2"]
    x: Int[Array, " 2"]
    y: Int[Array, " 2"]
    right: Bool[Array, " 2"]


class Divers(NamedTuple):
    """The divers in the water, the older first."""

    alive: Bool[Array, " 2"]
    x: Int[Array, " 2"]
    y: Int[Array, " 2"]
    right: Bool[Array, " 2"]
    move_timer: Int[Array, " 2"]


class SeaquestState(NamedTuple):
    """The board of Seaquest."""

    # the player
    x: Int[Array, ""]
    y: Int[Array, ""]
    right: Bool[Array, ""]
    oxygen: Int[Array, ""]
    rescued: Int[Array, ""]  # below 0 after surfacing with six: it costs one more, as published
    surfaced: Bool[Array, ""]
    fire_timer: Int[Array, ""]
    # the others
    enemies: Enemies
    bullets: Bullets
    divers: Divers
    next_slot: Int[Array, ""]  # where in the ring the next enemy appears
    # difficulty
    spawn_timer: Int[Array, ""]
    spawn_interval: Int[Array, ""]
    move_interval: Int[Array, ""]
    ramp_index: Int[Array, ""]
    diver_timer: Int[Array, ""]


class SeaquestDraws(NamedTuple):
    """What appears if something spawns."""

    enemy_right: Bool[Array, ""]
    enemy_armed: Bool[Array, ""]
    enemy_y: Int[Array, ""]
    diver_right: Bool[Array, ""]
    diver_y: Int[Array, ""]


@dataclass(frozen=True)
class Seaquest(MinAtar[SeaquestState, SeaquestDraws]):
    """Shoots, rescues divers and surfaces for air; see `MinAtar` for the options."""

    actions: ClassVar[tuple[str, ...]] = ("noop", "left", "up", "right", "down", "fire")
    channels: ClassVar[tuple[str, ...]] = (
        "player front",
        "player back",
        "friendly bullet",
        "trail",
        "enemy bullet",
        "fish",
        "submarine",
        "oxygen gauge",
        "diver gauge",
        "diver",
    )
    num_uniforms: ClassVar[int] = 5

    def draw(self, uniforms: Float[Array, " 5"]) -> SeaquestDraws:
        """Which enemy and which diver appear, and where."""
        return SeaquestDraws(
            enemy_right=uniforms[0] < 1 / 2,
            enemy_armed=uniforms[1] < 1 / 3,
            enemy_y=1 + below(uniforms[2], SIZE - 2),
            diver_right=uniforms[3] < 1 / 2,
            diver_y=1 + below(uniforms[4], SIZE - 2),
        )

    def start(self, draws: SeaquestDraws) -> SeaquestState:
        """The player at the surface of an empty sea."""
        del draws
        none, zero = jnp.zeros(NUM_ENEMIES, jnp.bool_), jnp.zeros(NUM_ENEMIES, jnp.int32)
        few_none, few_zero = jnp.zeros(PAIR, jnp.bool_), jnp.zeros(PAIR, jnp.int32)
        return SeaquestState(
            x=jnp.int32(5),
            y=jnp.int32(0),
            right=jnp.bool_(False),
            oxygen=jnp.int32(MAX_OXYGEN),
            rescued=jnp.int32(0),
            surfaced=jnp.bool_(True),
            fire_timer=jnp.int32(0),
            enemies=Enemies(none, zero, zero, none, none, zero, zero, zero - 1),
            bullets=Bullets(few_none, few_zero, few_zero, few_none),
            divers=Divers(few_none, few_zero, few_zero, few_none, few_zero),
            next_slot=jnp.int32(0),
            spawn_timer=jnp.int32(SPAWN_INTERVAL),
            spawn_interval=jnp.int32(SPAWN_INTERVAL),
            move_interval=jnp.int32(MOVE_INTERVAL),
            ramp_index=jnp.int32(0),
            diver_timer=jnp.int32(DIVER_SPAWN_INTERVAL),
        )

    def transition(
        self, game: SeaquestState, action: Int[Array, ""], draws: SeaquestDraws
    ) -> tuple[SeaquestState, Float[Array, ""], Bool[Array, ""]]:
        """All that moves, in the published order: (next state, reward, terminated)."""
        game = _spawn_enemy(game, draws)
        game = _spawn_diver(game, draws)
        game = _act(game, action)
        game, shot = _fly(game)
        game = _drift(game)
        game, rammed, touched = _attack(game)
        game, bonus, suffocated = _breathe(game, self.difficulty_ramping)
        after = game._replace(
            spawn_timer=countdown(game.spawn_timer),
            diver_timer=countdown(game.diver_timer),
            fire_timer=countdown(game.fire_timer),
        )
        return after, (shot + rammed + bonus).astype(jnp.float32), touched | suffocated

    def observe(self, game: SeaquestState) -> Bool[Array, "10 10 10"]:
        """The ten planes, in the order of `channels`."""
        enemies, divers, bullets = game.enemies, game.divers, game.bullets
        fish, submarines, trails, enemy_bullets = planes(
            enemies.y,
            [
                (enemies.alive & ~enemies.armed, enemies.x),
                (enemies.alive & enemies.armed, enemies.x),
                (enemies.alive, behind(enemies.x, enemies.right)),
                (None, enemies.bullet_x),
            ],
        )
        swimmers, wakes = planes(
            divers.y, [(divers.alive, divers.x), (divers.alive, behind(divers.x, divers.right))]
        )
        (friendly_bullets,) = planes(bullets.y, [(bullets.alive, bullets.x)])
        bottom = ROWS == SIZE - 1
        oxygen = bottom & (jnp.maximum(game.oxygen, 0) * SIZE // MAX_OXYGEN > COLUMNS)
        rescued = bottom & (SIZE - 1 - game.rescued <= COLUMNS) & (COLUMNS < SIZE - 1)
        shown = [
            cell(game.x, game.y),
            cell(behind(game.x, game.right), game.y),
            friendly_bullets,
            trails | wakes,
            enemy_bullets,
            fish,
            submarines,
            oxygen,
            rescued,
            swimmers,
        ]
        return jnp.stack(shown, axis=-1)


def _spawn_enemy(game: SeaquestState, draws: SeaquestDraws) -> SeaquestState:
    """Spawns an enemy if one is due and all enemies in its row move in its direction."""
    enemies = game.enemies
    due = game.spawn_timer == 0
    opposed = (enemies.y == draws.enemy_y) & (enemies.right != draws.enemy_right)
    appears = due & ~jnp.any(enemies.alive & opposed)
    new = Enemies(
        alive=jnp.bool_(True),
        x=entry(draws.enemy_right),
        y=draws.enemy_y,
        right=draws.enemy_right,
        armed=draws.enemy_armed,
        move_timer=game.move_interval,
        fire_timer=jnp.int32(ENEMY_FIRE_INTERVAL),
        # off the screen on the side that it moves to, where a bullet stays
        bullet_x=jnp.where(draws.enemy_right, SIZE, -1).astype(jnp.int32),
    )
    here = appears & (game.next_slot == SLOTS)
    return game._replace(
        enemies=jax.tree.map(lambda one, all_: jnp.where(here, one, all_), new, enemies),
        next_slot=(game.next_slot + appears.astype(jnp.int32)) % NUM_ENEMIES,
        spawn_timer=jnp.where(due, game.spawn_interval, game.spawn_timer),
    )


def _appended(one: Array, pair: Array, when: Bool[Array, ""]) -> Array:
    """The pair (older, newer) with one more, if `when`; the older one is gone by then."""
    return jnp.where(when, jnp.stack([pair[1], one]), pair)


def _spawn_diver(game: SeaquestState, draws: SeaquestDraws) -> SeaquestState:
    due = game.diver_timer == 0
    new = Divers(
        alive=jnp.bool_(True),
        x=entry(draws.diver_right),
        y=draws.diver_y,
        right=draws.diver_right,
        move_timer=jnp.int32(DIVER_MOVE_INTERVAL),
    )
    return game._replace(
        divers=jax.tree.map(lambda one, pair: _appended(one, pair, due), new, game.divers),
        diver_timer=jnp.where(due, DIVER_SPAWN_INTERVAL, game.diver_timer),
    )


def _act(game: SeaquestState, action: Int[Array, ""]) -> SeaquestState:
    """The player moves, turns or fires."""
    fires = (action == FIRE) & (game.fire_timer == 0)
    new = Bullets(jnp.bool_(True), game.x, game.y, game.right)
    return game._replace(
        bullets=jax.tree.map(lambda one, pair: _appended(one, pair, fires), new, game.bullets),
        fire_timer=jnp.where(fires, FIRE_INTERVAL, game.fire_timer),
        x=shifted(game.x, action, LEFT, RIGHT, 0, SIZE - 1),
        y=shifted(game.y, action, UP, DOWN, 0, SIZE - 2),
        right=(action == RIGHT) | (game.right & (action != LEFT)),
    )


def _fly(game: SeaquestState) -> tuple[SeaquestState, Int[Array, ""]]:
    """The player's bullets move; (state, how many enemies they hit).

    A bullet hits one enemy at most, even where there are several in a cell. The newer bullet goes
    first, and takes fish before submarines and, of either, the one that appeared first.
    """
    bullets, enemies = game.bullets, game.enemies
    x = ahead(bullets.x, bullets.right)
    alive = bullets.alive & on_screen(x)
    age_order = (SLOTS - game.next_slot) % NUM_ENEMIES
    order = age_order + NUM_ENEMIES * enemies.armed.astype(jnp.int32)
    last = 2 * NUM_ENEMIES

    standing = enemies.alive
    spent = []
    for i in (1, 0):
        meets = standing & (enemies.x == x[i]) & (enemies.y == bullets.y[i]) & alive[i]
        first = jnp.min(jnp.where(meets, order, last))
        standing = standing & (order != first)
        spent.append(first < last)
    spent = jnp.stack(spent[::-1])
    after = game._replace(
        bullets=bullets._replace(x=x, alive=alive & ~spent),
        enemies=enemies._replace(alive=standing),
    )
    return after, jnp.sum(spent, dtype=jnp.int32)


def _drift(game: SeaquestState) -> SeaquestState:
    """Divers move or come on board, the newer first: there may be room for only one."""
    divers = game.divers
    waits = divers.move_timer != 0
    x = jnp.where(waits, divers.x, ahead(divers.x, divers.right))
    touched = (divers.y == game.y) & ((divers.x == game.x) | (x == game.x))
    boards = divers.alive & touched
    newer = boards[1] & (game.rescued < MAX_DIVERS)
    rescued = game.rescued + newer.astype(jnp.int32)
    older = boards[0] & (rescued < MAX_DIVERS)
    divers = divers._replace(
        alive=divers.alive & ~jnp.stack([older, newer]) & on_screen(x),
        x=x,
        move_timer=jnp.where(waits, divers.move_timer - 1, DIVER_MOVE_INTERVAL),
    )
    return game._replace(divers=divers, rescued=rescued + older.astype(jnp.int32))


def _attack(game: SeaquestState) -> tuple[SeaquestState, Int[Array, ""], Bool[Array, ""]]:
    """Enemies and their bullets move; (state, enemies that ran into a bullet, player touched).

    All enemies move at once here. Those of a row move the same way, start in the same cell and
    differ in age, so no two enter one cell in the same step and none competes for a bullet.
    """
    enemies, bullets = game.enemies, game.bullets
    in_row = enemies.y == game.y
    moves = enemies.alive & (enemies.move_timer == 0)
    x = jnp.where(moves, ahead(enemies.x, enemies.right), enemies.x)
    touches = enemies.alive & in_row & ((enemies.x == game.x) | (x == game.x))

    # Of two bullets in a cell the older is spent. An enemy that reaches the player meets no bullet.
    arrives = moves & ~(in_row & (x == game.x))
    meets = (enemies.y[None] == bullets.y[:, None]) & (x[None] == bullets.x[:, None])
    meets = meets & arrives[None] & bullets.alive[:, None]
    by_newer = meets[1] & ~meets[0]
    spent = jnp.stack([jnp.any(meets[0]), jnp.any(by_newer)])

    # A submarine that is hit or leaves in this step still fires.
    fires = enemies.alive & enemies.armed & (enemies.fire_timer == 0)
    muzzle = jnp.where(fires, x, enemies.bullet_x)
    bullet_x = jnp.clip(ahead(muzzle, enemies.right), -1, SIZE)
    struck = in_row & ((muzzle == game.x) | (bullet_x == game.x))

    after = game._replace(
        enemies=enemies._replace(
            alive=enemies.alive & on_screen(x) & ~(meets[0] | meets[1]),
            x=x,
            move_timer=jnp.where(moves, game.move_interval, enemies.move_timer - 1),
            fire_timer=jnp.where(
                enemies.fire_timer == 0, ENEMY_FIRE_INTERVAL, enemies.fire_timer - 1
            ),
            bullet_x=bullet_x,
        ),
        bullets=bullets._replace(alive=bullets.alive & ~spent),
    )
    return after, jnp.sum(spent, dtype=jnp.int32), jnp.any(touches | struck)


def _breathe(
    game: SeaquestState, ramping: bool
) -> tuple[SeaquestState, Int[Array, ""], Bool[Array, ""]]:
    """The player uses up oxygen or surfaces; (state, bonus, whether the episode ends by it)."""
    under_water = game.y > 0
    arrives = ~under_water & ~game.surfaced
    surfaces = arrives & (game.rescued != 0)
    ends = (game.oxygen <= 0) | (arrives & (game.rescued == 0))
    full = surfaces & (game.rescued == MAX_DIVERS)
    bonus = jnp.where(full, game.oxygen * SIZE // MAX_OXYGEN, 0)

    harder = surfaces & ((game.spawn_interval > 1) | (game.move_interval > MIN_MOVE_INTERVAL))
    harder = harder & ramping
    faster = harder & (game.move_interval > MIN_MOVE_INTERVAL) & (game.ramp_index % 2 == 1)
    denser = harder & (game.spawn_interval > 1)
    after = game._replace(
        oxygen=jnp.where(surfaces, MAX_OXYGEN, game.oxygen - under_water.astype(jnp.int32)),
        rescued=jnp.where(full, 0, game.rescued) - surfaces.astype(jnp.int32),
        surfaced=~under_water & (game.surfaced | surfaces),
        move_interval=game.move_interval - faster.astype(jnp.int32),
        spawn_interval=game.spawn_interval - denser.astype(jnp.int32),
        ramp_index=game.ramp_index + harder.astype(jnp.int32),
    )
    return after, bonus, ends
