"""Small networks of Flax NNX, Flax Linen and Equinox, each with an optimizer."""

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import optax
from flax import nnx

import regrow.nnx
from regrow.nnx import equinox, linen
from regrow.nnx.base import leaves_of

KEY = jax.random.key(3)
ADAM = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2, weight_decay=0.1))
KINDS = ("mlp", "cnn", "twins")


def inputs_of(kind: str) -> jax.Array:
    shape = (7, 6, 6, 2) if kind == "cnn" else (7, 5)
    return jax.random.normal(jax.random.key(11), shape)


class InNNX:
    """A small agent in Flax NNX, with what the tests ask of every library."""

    class Net(nnx.Module):
        def __init__(self, kind: str, rngs: nnx.Rngs):
            if kind == "cnn":
                self.encoder = nnx.Conv(2, 4, (3, 3), strides=2, rngs=rngs)
            else:
                self.encoder = nnx.Linear(5, 8, rngs=rngs)
            wide = 36 if kind == "cnn" else 8
            self.heads = nnx.List(
                nnx.Sequential(
                    nnx.Linear(wide, 6, rngs=rngs), nnx.relu, nnx.Linear(6, 3, rngs=rngs)
                )
                for _ in range(2 if kind == "twins" else 1)
            )

        def __call__(self, x: jax.Array) -> Any:
            x = nnx.relu(self.encoder(x))
            outs = [head(x.reshape(x.shape[0], -1)) for head in self.heads]
            return tuple(outs) if len(outs) > 1 else outs[0]

    def __init__(self, kind: str):
        self.at = [f"heads.{i}" for i in range(2 if kind == "twins" else 1)]
        self.build = lambda rngs: self.Net(kind, rngs)
        self.net, self.x = self.build(nnx.Rngs(0)), inputs_of(kind)
        self.optimizer = nnx.Optimizer(self.net, ADAM, wrt=nnx.Param)

    def out(self) -> Any:
        return self.net(self.x), nnx.jit(lambda net, x: net(x))(self.net, self.x)

    def gradient(self) -> dict:
        return leaves_of(nnx.as_pure(nnx.grad(lambda net: loss(net(self.x)))(self.net)))

    def step(self) -> None:
        gradient = nnx.grad(lambda net: loss(net(self.x)))(self.net)
        self.optimizer.update(self.net, gradient)

    def inject(self, seed: int) -> None:
        regrow.nnx.inject(
            self.net, self.at, rngs=nnx.Rngs(seed), optimizer=self.optimizer, init=self.build
        )

    def learned(self) -> dict:
        return leaves_of(nnx.as_pure(nnx.state(self.net, nnx.Param)))

    def frozen(self) -> dict:
        return leaves_of(nnx.as_pure(nnx.state(self.net, regrow.nnx.Frozen)))

    def moments(self) -> dict:
        return leaves_of(nnx.as_pure(self.optimizer.opt_state))


class InLinen:
    """The same in Flax Linen."""

    class Net(nn.Module):
        kind: str

        @nn.compact
        def __call__(self, x: jax.Array) -> Any:
            if self.kind == "cnn":
                x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="encoder")(x))
            else:
                x = nn.relu(nn.Dense(8, name="encoder")(x))
            x = x.reshape(x.shape[0], -1)
            outs = [
                nn.Dense(3)(nn.relu(nn.Dense(6)(x)))
                for _ in range(2 if self.kind == "twins" else 1)
            ]
            return tuple(outs) if len(outs) > 1 else outs[0]

    def __init__(self, kind: str):
        self.x, net = inputs_of(kind), self.Net(kind)
        self.at = [f"Dense_{i}" for i in range(4 if kind == "twins" else 2)]
        self.init = lambda key: net.init(key, self.x)
        self.apply: Any = net.apply
        self.params, self.kept, self.optimizer = self.init(jax.random.key(0))["params"], (), ADAM
        self.opt_state = ADAM.init(self.params)

    def _out(self, params: Any, frozen: Any) -> Any:
        variables = {"params": params} | ({"frozen": frozen} if frozen else {})
        return self.apply(variables, self.x)

    def out(self) -> Any:
        args = self.params, self.kept
        return self._out(*args), jax.jit(self._out)(*args)

    def _gradient(self) -> Any:
        return jax.grad(lambda params: loss(self._out(params, self.kept)))(self.params)

    def gradient(self) -> dict:
        return leaves_of(self._gradient())

    def step(self) -> None:
        update, self.opt_state = self.optimizer.update(
            self._gradient(), self.opt_state, self.params
        )
        self.params = optax.apply_updates(self.params, update)

    def inject(self, seed: int) -> None:
        new = linen.inject(
            self.apply,
            self.params,
            self.at,
            key=jax.random.key(seed),
            init=self.init,
            frozen=self.kept,
            optimizer=self.optimizer,
            opt_state=self.opt_state,
        )
        self.apply, self.params, self.kept, self.optimizer, self.opt_state = new

    def learned(self) -> dict:
        return leaves_of(self.params)

    def frozen(self) -> dict:
        return leaves_of(self.kept)

    def moments(self) -> dict:
        return leaves_of(self.opt_state)


class InEquinox:
    """The same in Equinox."""

    class Net(eqx.Module):
        encoder: Any
        heads: list

        def __init__(self, kind: str, key: jax.Array):
            keys = jax.random.split(key, 5)
            if kind == "cnn":
                self.encoder = eqx.nn.Conv2d(6, 4, 3, stride=2, padding=1, key=keys[0])
            else:
                self.encoder = eqx.nn.Linear(5, 8, key=keys[0])
            wide = 12 if kind == "cnn" else 8
            self.heads = [
                eqx.nn.Sequential(
                    [
                        eqx.nn.Linear(wide, 6, key=keys[2 * i + 1]),
                        eqx.nn.Lambda(jax.nn.relu),
                        eqx.nn.Linear(6, 3, key=keys[2 * i + 2]),
                    ]
                )
                for i in range(2 if kind == "twins" else 1)
            ]

        def __call__(self, x: jax.Array) -> Any:
            x = jax.nn.relu(self.encoder(x)).reshape(-1)
            outs = [head(x) for head in self.heads]
            return tuple(outs) if len(outs) > 1 else outs[0]

    def __init__(self, kind: str):
        self.build = lambda key: self.Net(kind, key)
        self.net, self.x, self.optimizer = self.build(jax.random.key(0)), inputs_of(kind), ADAM
        self.trainable = equinox.trainable(self.net)
        self.opt_state = ADAM.init(eqx.filter(self.net, eqx.is_array))

    def _out(self, net: Any) -> Any:
        return jax.vmap(net)(self.x)

    def out(self) -> Any:
        return self._out(self.net), eqx.filter_jit(self._out)(self.net)

    def _gradient(self) -> Any:
        # Equinox's own way differentiates all floating arrays.
        gradient = eqx.filter_grad(lambda net: loss(self._out(net)))(self.net)
        learned, frozen = eqx.partition(gradient, self.trainable)
        assert all(not leaf.any() for leaf in jax.tree.leaves(frozen))
        return learned

    def gradient(self) -> dict:
        return leaves_of(self._gradient())

    def step(self) -> None:
        learned, frozen = eqx.partition(self.net, self.trainable)
        update, self.opt_state = self.optimizer.update(self._gradient(), self.opt_state, learned)
        self.net = eqx.combine(eqx.apply_updates(learned, update), frozen)

    def inject(self, seed: int) -> None:
        new = equinox.inject(
            self.net,
            lambda net: net.heads,
            key=jax.random.key(seed),
            init=self.build,
            optimizer=self.optimizer,
            opt_state=self.opt_state,
        )
        self.net, self.trainable, self.optimizer, self.opt_state = new

    def learned(self) -> dict:
        return leaves_of(eqx.filter(self.net, self.trainable))

    def frozen(self) -> dict:
        others = jax.tree.map(lambda learns: not learns, self.trainable)
        return leaves_of(eqx.filter(eqx.filter(self.net, others), eqx.is_array))

    def moments(self) -> dict:
        return leaves_of(self.opt_state)


LIBRARIES = (InNNX, InLinen, InEquinox)


def loss(out: Any) -> jax.Array:
    return sum(((leaf - 1) ** 2).sum() for leaf in jax.tree.leaves(out))


def same(a: Any, b: Any) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


def size(leaves: dict) -> int:
    return sum(leaf.size for leaf in leaves.values())


def of_encoder(leaves: dict) -> dict:
    """Leaves of the encoder, by the end of their path; an optimizer's state also has moments."""
    return {path[-4:]: leaf for path, leaf in leaves.items() if "encoder" in path}


class ChainNNX(nnx.Module):
    """The weights of a chain of dense layers; the head begins at the second."""

    def __init__(self, weights: list):
        layers: list[Any] = []
        for weight, bias in weights:
            layer = nnx.Linear(*weight.shape, rngs=nnx.Rngs(0))
            layer.kernel[...], layer.bias[...] = weight, bias
            layers += [nnx.relu] * bool(layers) + [layer]
        self.net = nnx.Sequential(*layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.net(x)


class ChainEquinox(eqx.Module):
    net: eqx.nn.Sequential

    def __init__(self, weights: list):
        layers: list[Any] = []
        for weight, bias in weights:
            layer = eqx.nn.Linear(*weight.shape, key=KEY)
            layer = eqx.tree_at(lambda one: (one.weight, one.bias), layer, (weight.T, bias))
            layers += [eqx.nn.Lambda(jax.nn.relu)] * bool(layers) + [layer]
        self.net = eqx.nn.Sequential(layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.vmap(self.net)(x)


def weights_of(layers: Any) -> list:
    return [(layer.weight, layer.bias) for layer in layers]
