"""Networks of this library as modules of PyTorch: the same weights, channels first."""

import equinox as eqx
import jax
import numpy as np
import torch
from torch import nn

from regrow.networks.layers import Conv
from regrow.networks.network import Network

torch.set_num_threads(1)  # the modules are small, and the tests run beside each other


def tensor(array) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def channels_first(x) -> torch.Tensor:
    """Inputs, with images as (batch, channels, height, width)."""
    array = np.asarray(x, np.float32)
    return tensor(np.moveaxis(array, -1, 1) if array.ndim == 4 else array)


def as_module(network: Network) -> nn.Sequential:
    """The live chain of a network, with values of its own."""
    steps = list[nn.Module]()
    image = None
    for layer in network.layers:
        if isinstance(layer, Conv):
            kernel = np.transpose(np.asarray(layer.weight), (3, 2, 0, 1))
            step, image = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2]), layer.image
            shape = (layer.units, *layer.image)
        else:
            kernel = np.asarray(layer.weight)
            if image is not None:
                steps.append(nn.Flatten())
                there = kernel.reshape(*image, -1, layer.units)
                kernel, image = np.moveaxis(there, 2, 0).reshape(kernel.shape), None
            kernel, step = kernel.T, nn.Linear(*kernel.shape)
            shape = (layer.units,)
        steps.append(holding(step, kernel, layer.bias))
        if layer.norm is not None:
            norm = [
                np.moveaxis(np.asarray(one), -1, 0) for one in (layer.norm.weight, layer.norm.bias)
            ]
            steps.append(holding(nn.LayerNorm(shape, eps=layer.norm.eps), *norm))
        steps += [nn.ReLU()] if layer.activation == "relu" else []
    return nn.Sequential(*steps)


def holding(module, weight, bias):
    with torch.no_grad():
        module.weight.copy_(tensor(weight))
        module.bias.copy_(tensor(bias))
    return module


def head_of(module: nn.Sequential) -> str:
    """Where the head of such a module begins: after the first activation."""
    return str(next(i for i, step in enumerate(module) if isinstance(step, nn.ReLU)) + 1)


def moved(network: Network, by: float, seed: int) -> Network:
    """Every parameter somewhere else."""
    leaves, tree = jax.tree.flatten(network.layers)
    rng = np.random.default_rng(seed)
    leaves = [leaf + by * rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    return eqx.tree_at(lambda n: n.layers, network, jax.tree.unflatten(tree, leaves))
