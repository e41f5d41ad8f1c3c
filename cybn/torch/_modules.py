"""Modules that are PyTorch's, but for the function that they call."""

from torch import nn

from ._activations import find_activation
from ._functional import (
    batch_norm_counted,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)


def _tensors(module, *names):
    """Return what is mostly parameters and buffers, sooner than `nn.Module` finds them."""
    own = module._parameters | module._buffers
    return [own[name] if name in own else getattr(module, name) for name in names]


class _Batch:
    def forward(self, input, residual=None, activation=None):
        """Normalize each channel, add `residual` and apply `activation`, if there are any."""
        return batch_norm_counted(input, *self._arguments(input), residual, activation)

    def _arguments(self, input):
        """Return what is to count this batch, or None, and what `batch_norm` takes after the input.

        A momentum that depends on the count needs it here.
        """
        self._check_input_dim(input)
        names = "running_mean", "running_var", "weight", "bias", "num_batches_tracked"
        mean, var, weight, bias, batches = _tensors(self, *names)
        training, momentum = self.training, self.momentum
        if training and self.track_running_stats:
            if momentum is None and batches is not None:
                batches.add_(1)
                momentum, batches = 1.0 / float(batches), None
        elif training:
            mean = var = batches = None
        else:
            training, batches = mean is None and var is None, None
        return batches, mean, var, weight, bias, training, momentum or 0.0, self.eps


class _BatchAct(_Batch):
    def __init__(self, *arguments, activation="relu", **options):
        find_activation(activation)
        super().__init__(*arguments, **options)
        self.activation = activation

    def forward(self, input, residual=None):
        """Normalize each channel, add `residual`, if there is one, and activate."""
        return super().forward(input, residual, self.activation)

    def extra_repr(self):
        """Return PyTorch's, and the activation."""
        return f"{super().extra_repr()}, activation={self.activation!r}"

    @property
    def qconfig(self):
        """Not there: who asks replaces batch norms, and would drop the activation.

        `torch.nn.SyncBatchNorm.convert_sync_batchnorm` does so.
        """
        raise TypeError(
            f"{type(self).__name__}: expected a conversion that knows its activation, such as "
            "cybn.torch.SyncBatchNorm.convert_sync_batchnorm; for others use a BatchNorm and the "
            "activation as modules of their own"
        )


class _Instance:
    def _apply_instance_norm(self, input):
        return instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )


class BatchNorm1d(_Batch, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`, computed by cybn: of shape (N, C) or (N, C, L)."""


class BatchNorm2d(_Batch, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, computed by cybn: of shape (N, C, H, W)."""


class BatchNorm3d(_Batch, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d`, computed by cybn: of shape (N, C, D, H, W)."""


class BatchNormAct1d(_BatchAct, nn.BatchNorm1d):
    """`BatchNorm1d`, then an addition and an activation: see `BatchNormAct2d`."""


class BatchNormAct2d(_BatchAct, nn.BatchNorm2d):
    """`BatchNorm2d`, then an addition and an activation, in one call of `batch_norm`.

    It is called with the input, and perhaps with a residual, which is added before the activation.
    The state dict is that of `torch.nn.BatchNorm2d`.

    Parameters
    ----------
    *arguments, **options
        Those of `torch.nn.BatchNorm2d`.
    activation : str or tuple, optional
        As in `cybn.torch.batch_norm`.

    Raises
    ------
    ValueError
        If there is no such activation.

    Examples
    --------
    >>> import torch, cybn.torch
    >>> norm = cybn.torch.BatchNormAct2d(8, activation="relu6")
    >>> x = torch.randn(2, 8, 4, 4)
    >>> norm(x, residual=x).min()
    tensor(0., grad_fn=<MinBackward1>)
    """


class BatchNormAct3d(_BatchAct, nn.BatchNorm3d):
    """`BatchNorm3d`, then an addition and an activation: see `BatchNormAct2d`."""


class InstanceNorm1d(_Instance, nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d`, computed by cybn: of shape (N, C, L) or (C, L)."""


class InstanceNorm2d(_Instance, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d`, computed by cybn: of shape (N, C, H, W) or (C, H, W)."""


class InstanceNorm3d(_Instance, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d`, computed by cybn: of shape (N, C, D, H, W) or (C, D, H, W)."""


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm`, computed by cybn."""

    def forward(self, input):
        """Normalize the trailing dimensions."""
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm`, computed by cybn."""

    def forward(self, x):
        """Divide by the root mean square of the trailing dimensions."""
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`, computed by cybn."""

    def forward(self, input):
        """Normalize groups of channels."""
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


for _name, _class in list(globals().items()):
    if isinstance(_class, type) and issubclass(_class, nn.Module) and not _name.startswith("_"):
        _class.__module__ = "cybn.torch"  # in pickles, too
