"""JAX under jit: XLA fuses what the formulas say."""

from functools import partial

import jax
import jax.numpy as jnp

from bench.cells import EPS, MOMENTUM
from bench.compare.systems import Task


class System:
    def __init__(self, threads):
        """XLA's pool has as many threads as the process has processors."""
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", True)

    def configuration(self):
        return {"version": jax.__version__}

    def training(self, problem, reuse):
        if reuse:
            return None
        p = problem
        arguments = _on_device(p.x, p.gamma, p.beta, p.running_mean, p.running_var)
        call = partial(_training, *arguments, axis=p.cell.axis)
        return Task(lambda: jax.block_until_ready(call()), lambda result: _arrays(result[:1]))

    def inference(self, problem, reuse):
        if reuse:
            return None
        p = problem
        arguments = _on_device(p.x, p.gamma, p.beta, p.running_mean, p.running_var)
        call = partial(_inference, *arguments, axis=p.cell.axis)
        return Task(lambda: jax.block_until_ready(call()), lambda y: _arrays([y]))

    def backward(self, problem, reuse):
        if reuse:
            return None
        p = problem
        x, dy, gamma, beta = _on_device(p.x, p.dy, p.gamma, p.beta)
        mean, invstd = _training(x, gamma, beta, gamma, beta, axis=p.cell.axis)[3:]
        call = partial(_backward, dy, x, gamma, mean, invstd, axis=p.cell.axis)
        return Task(lambda: jax.block_until_ready(call()), _arrays)


@partial(jax.jit, static_argnames="axis")
def _training(x, gamma, beta, running_mean, running_var, axis):
    """y, the new running mean and variance, and what `_backward` needs."""
    axes, channelwise = _geometry(x, axis)
    count = x.size // x.shape[axis]
    mean, var = x.mean(axes), x.var(axes)
    invstd = jax.lax.rsqrt(var + EPS)
    y = (x - mean.reshape(channelwise)) * (invstd * gamma).reshape(channelwise)
    y += beta.reshape(channelwise)
    running_mean = (1 - MOMENTUM) * running_mean + MOMENTUM * mean
    running_var = (1 - MOMENTUM) * running_var + MOMENTUM * var * count / (count - 1)
    return y, running_mean, running_var, mean, invstd


@partial(jax.jit, static_argnames="axis")
def _inference(x, gamma, beta, mean, var, axis):
    _, channelwise = _geometry(x, axis)
    scale = (jax.lax.rsqrt(var + EPS) * gamma).reshape(channelwise)
    return (x - mean.reshape(channelwise)) * scale + beta.reshape(channelwise)


@partial(jax.jit, static_argnames="axis")
def _backward(dy, x, gamma, mean, invstd, axis):
    axes, channelwise = _geometry(x, axis)
    count = x.size // x.shape[axis]
    xhat = (x - mean.reshape(channelwise)) * invstd.reshape(channelwise)
    dgamma, dbeta = (dy * xhat).sum(axes), dy.sum(axes)
    correction = (dbeta.reshape(channelwise) + xhat * dgamma.reshape(channelwise)) / count
    return (gamma * invstd).reshape(channelwise) * (dy - correction), dgamma, dbeta


def _geometry(x, axis):
    axis %= x.ndim
    axes = tuple(i for i in range(x.ndim) if i != axis)
    return axes, tuple(n if i == axis else 1 for i, n in enumerate(x.shape))


def _on_device(*arrays):
    return tuple(jnp.asarray(array) for array in arrays)


def _arrays(results):
    return tuple(jax.device_get(result) for result in results)
