"""Batch norm over the processes of a group of `torch.distributed`."""

import warnings
from copy import copy

import torch
from torch import distributed, nn
from torch.autograd.graph import increment_version
from torch.nn.modules import batchnorm

from .._backward import backward
from .._functional import batch_norm
from .._group import exchange_of
from . import _modules
from ._activations import find_activation
from ._arrays import as_array, as_tensor, from_array, in_c_order, in_c_order_of
from ._operators import like_parameters, tensors_for_backward
from ._plans import Settings, make_plan

_PLAIN = (torch.Tensor, nn.Parameter)


class _Group:
    """A process group in one call, as `cybn.batch_norm` takes it: with a size, and `allgather`."""

    __slots__ = ("_processes", "joined", "size")

    def __init__(self, processes):
        self._processes = processes
        self.size = distributed.get_world_size(processes)
        self.joined = False

    def allgather(self, vector):
        """Return the float64 vectors of all members, in the order of their ranks."""
        self.joined = True
        rows = torch.empty(self.size * vector.size, dtype=torch.float64)
        distributed.all_gather_single(rows, torch.from_numpy(vector), self._processes)
        return rows.view(self.size, -1).numpy()


class _SyncNorm(torch.autograd.Function):
    """A batch norm over all members of a group, and its gradients."""

    @staticmethod
    def forward(ctx, group, x, weight, bias, running_mean, running_var, residual, settings):
        plan = make_plan(x.shape, x.stride(), settings)
        parameters = weight, bias, running_mean, running_var
        gamma, beta, mean, var = (each if each is None else as_array(each) for each in parameters)
        y, cache = batch_norm(
            in_c_order(x, plan),
            gamma,
            beta,
            running_mean=mean,
            running_var=var,
            momentum=settings.momentum,
            eps=settings.eps,
            axis=1 if plan.to_last is None else -1,
            activation=settings.core_activation(),
            residual=None if residual is None else in_c_order_of(residual, plan),
            group=group,
        )
        y = as_tensor(y, x.dtype, plan)
        # What autograd keeps is not the cache's, nor what nobody asks for.
        _, needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        cache.x = cache._arrays.third = None
        if not needs_x:
            cache._group = None
        if not needs_weight:
            cache._arrays.gamma = None
        if not needs_bias:
            cache._arrays.beta = None
        ctx.cache, ctx.plan = cache, plan
        ctx.save_for_backward(*tensors_for_backward(x, weight, bias, residual, y, settings))
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, bias, third = ctx.saved_tensors
        gradients = _Gradients.apply(dy, x, weight, bias, third, ctx.cache, ctx.plan)
        _, needs_x, *_, needs_residual, _ = ctx.needs_input_grad
        dx, dweight, dbias, dresidual = gradients
        dx, dresidual = dx if needs_x else None, dresidual if needs_residual else None
        return None, dx, dweight, dbias, None, None, dresidual, None


class _Gradients(torch.autograd.Function):
    """The gradients, which have none themselves."""

    @staticmethod
    def forward(ctx, dy, x, weight, bias, third, cache, plan):
        cache, arrays = copy(cache), copy(cache._arrays)  # other calls may use them, too
        cache.x, cache._arrays = in_c_order(x, plan), arrays
        arrays.third = None if third is None else in_c_order_of(third, plan)
        gradients = backward(in_c_order_of(dy, plan), cache)
        parameter = like_parameters(x, weight, bias)
        return (
            as_tensor(gradients.dx, x.dtype, plan),
            *(
                each if each is None else from_array(each, parameter.dtype)
                for each in gradients[1:]
            ),
            None if third is None else as_tensor(gradients.dresidual, x.dtype, plan),
        )

    @staticmethod
    def backward(ctx, *_):
        raise NotImplementedError(
            "cybn.torch.SyncBatchNorm: expected first derivatives only, as the second ones over "
            "several processes are not there; use BatchNorm, or eval(), where you need them"
        )


@torch._disable_dynamo  # as in torch.optim: it imports the compiler when it is called
def _normalize_in(processes, module, *given):
    """As `_normalize`, in a process group; if it raises, the other members are told."""
    group = _Group(processes)
    try:
        return _normalize(group, module, *given)
    except Exception as error:
        if not group.joined:
            exchange_of(group).fail(error)
        raise


def _normalize(group, module, x, residual, activation):
    """Return what a SyncBatchNorm makes of x in training, together with a group."""
    find_activation(activation)
    for tensor in (x, residual, module.weight, module.bias, module.running_mean):
        _check_plain(tensor)
    batches, mean, var, weight, bias, training, momentum, eps = module._arguments(x)
    if batches is not None:
        batches.add_(1)
    name, slope = activation if isinstance(activation, tuple) else (activation, 0.0)
    settings = Settings("batch", 0, training, momentum, eps, name, slope)
    y = _SyncNorm.apply(group, x, weight, bias, mean, var, residual, settings)
    if mean is not None:
        increment_version((mean, var))
    return y


def _check_plain(tensor):
    if tensor is not None and not (
        type(tensor) in _PLAIN
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_floating_point()
        and not torch.jit.is_tracing()
    ):
        raise TypeError(
            "SyncBatchNorm: expected tensors of floating point on the CPU, without tracing, got "
            f"{type(tensor).__name__} of {tensor.dtype} on {tensor.device}; call eval() first to "
            "trace or export a model"
        )


class SyncBatchNorm(_modules._Batch, batchnorm._BatchNorm):
    """`torch.nn.SyncBatchNorm` on the CPU: batch norm over the processes that train together.

    In training, mean and variance are those of the values of all processes, which may have
    different numbers of samples, or none. Each forward pass gathers one vector from each process,
    and each backward pass one. In `eval` nothing is exchanged, nor without an initialized process
    group, or in one of a single process. The gradients of weight and bias are those of the
    process's own samples: `DistributedDataParallel` averages them.

    It has the attributes and the state dict of `torch.nn.SyncBatchNorm`. It is no subclass, since
    `DistributedDataParallel` refuses that class on the CPU.

    Parameters
    ----------
    num_features : int
        C of an input of shape (N, C, ...), which may have any number of dimensions from 2 on.
    eps : float
        Finite and > 0, added to the variance.
    momentum : float or None
        From 0 to 1, the weight of the new value in the running statistics. None averages those of
        all batches.
    affine : bool
        Whether there are a weight and a bias.
    track_running_stats : bool
        Whether there are running statistics.
    process_group : torch.distributed.ProcessGroup, optional
        The processes that share their statistics. None means all.
    device, dtype
        Of the parameters and the running statistics.
    bias : bool
        Whether there is a bias, if `affine`.

    Raises
    ------
    ValueError
        In training, on all processes: if one of them fails, or they differ in channels, eps or
        dtype, or have one value of a channel in total.
    TypeError
        In training, if an input on the CPU is no ordinary tensor of floating point.

    Notes
    -----
    All processes must call the module equally often, and agree on whether its input needs a
    gradient: without one, backward exchanges nothing. A process that waits for one that is gone
    ends with an error of gloo's, at the latest after the ``timeout`` of ``init_process_group``.

    Tensors on other devices are PyTorch's.

    Examples
    --------
    >>> import torch, cybn.torch
    >>> norm = cybn.torch.SyncBatchNorm(3)
    >>> norm(torch.randn(5, 3)).mean(0).abs().max() < 1e-6  # here, of a single process
    tensor(True)
    """

    def __init__(
        self,
        num_features,
        eps=1e-5,
        momentum=0.1,
        affine=True,
        track_running_stats=True,
        process_group=None,
        device=None,
        dtype=None,
        *,
        bias=True,
    ):
        options = affine, track_running_stats, device, dtype
        super().__init__(num_features, eps, momentum, *options, bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input):
        batchnorm.SyncBatchNorm._check_input_dim(self, input)
        batchnorm.SyncBatchNorm._check_non_zero_input_channels(self, input)

    def forward(self, input, residual=None, activation=None):
        """Normalize each channel, add `residual` and apply `activation`, if there are any.

        In training, of all processes of the group together.
        """
        if not (input.is_cpu or input.is_meta):
            y = batchnorm.SyncBatchNorm.forward(self, input)
            return find_activation(activation)(y if residual is None else y + residual)
        together = (
            self.training
            and not input.is_meta
            and distributed.is_available()
            and distributed.is_initialized()
            and distributed.get_world_size(self.process_group) > 1
        )
        if together:
            return _normalize_in(self.process_group, self, input, residual, activation)
        return super().forward(input, residual, activation)

    @staticmethod
    def convert_sync_batchnorm(module, process_group=None):
        """Synchronize the batch norms of a model: PyTorch's and those of `cybn.torch`.

        As `cybn.torch.convert`, it changes the modules' classes in place, and nothing else. What a
        batch norm computes besides, an activation and a residual, it goes on to compute, also after
        ``convert(model, fuse=True)``. Call it before the model is given to
        `DistributedDataParallel`.

        Parameters
        ----------
        module : torch.nn.Module
            Any model, or a batch norm itself.
        process_group : torch.distributed.ProcessGroup, optional
            The processes that share their statistics. None means all.

        Returns
        -------
        torch.nn.Module
            `module` itself.

        Warns
        -----
        UserWarning
            With the names of batch norms of other classes, which stay as they are.

        Examples
        --------
        >>> import torch, cybn.torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
        >>> cybn.torch.SyncBatchNorm.convert_sync_batchnorm(model)[1]
        SyncBatchNorm(8, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
        """
        left = []
        for name, each in module.named_modules():
            if type(each) in _SYNCHRONIZED:
                each.__class__ = _SYNCHRONIZED[type(each)]
                each.process_group = process_group
            elif isinstance(each, batchnorm._BatchNorm):
                left.append(f"{name or 'module'} ({type(each).__name__})")
        if left:
            warnings.warn(
                f"convert_sync_batchnorm: not synchronized: {', '.join(left)}", stacklevel=2
            )
        return module


class SyncBatchNormAct(_modules._BatchAct, SyncBatchNorm):
    """`SyncBatchNorm`, then an addition and an activation: see `BatchNormAct2d`.

    Parameters
    ----------
    *arguments, **options
        Those of `SyncBatchNorm`.
    activation : str or tuple, optional
        As in `cybn.torch.batch_norm`.
    """


_SYNCHRONIZED = {
    getattr(owner, f"BatchNorm{n}d"): SyncBatchNorm for owner in (nn, _modules) for n in (1, 2, 3)
}
_SYNCHRONIZED |= {getattr(_modules, f"BatchNormAct{n}d"): SyncBatchNormAct for n in (1, 2, 3)}
_SYNCHRONIZED |= {each: each for each in (SyncBatchNorm, SyncBatchNormAct)}
_SYNCHRONIZED[nn.SyncBatchNorm] = SyncBatchNorm

for _class in (SyncBatchNorm, SyncBatchNormAct):
    _class.__module__ = "cybn.torch"  # in pickles, too
