"""Modules that are PyTorch's, but for the function that they call."""

from torch import nn

from ._functional import batch_norm, group_norm, instance_norm, layer_norm, rms_norm


class _Batch:
    def forward(self, input):
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        running = self.running_mean, self.running_var
        training = self.training or (running[0] is None and running[1] is None)
        if self.training and not self.track_running_stats:
            running = None, None
        return batch_norm(input, *running, self.weight, self.bias, training, momentum, self.eps)


class BatchNorm1d(_Batch, nn.BatchNorm1d):
    """As `torch.nn.BatchNorm1d`."""


class BatchNorm2d(_Batch, nn.BatchNorm2d):
    """As `torch.nn.BatchNorm2d`."""


class BatchNorm3d(_Batch, nn.BatchNorm3d):
    """As `torch.nn.BatchNorm3d`."""


class _Instance:
    def _apply_instance_norm(self, input):
        return instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0,
            self.eps,
        )


class InstanceNorm1d(_Instance, nn.InstanceNorm1d):
    """As `torch.nn.InstanceNorm1d`."""


class InstanceNorm2d(_Instance, nn.InstanceNorm2d):
    """As `torch.nn.InstanceNorm2d`."""


class InstanceNorm3d(_Instance, nn.InstanceNorm3d):
    """As `torch.nn.InstanceNorm3d`."""


class LayerNorm(nn.LayerNorm):
    """As `torch.nn.LayerNorm`."""

    def forward(self, input):
        """Normalize the trailing dimensions."""
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """As `torch.nn.RMSNorm`."""

    def forward(self, x):
        """Divide by the root mean square of the trailing dimensions."""
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(nn.GroupNorm):
    """As `torch.nn.GroupNorm`."""

    def forward(self, input):
        """Normalize groups of channels."""
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


for _module in (BatchNorm1d, BatchNorm2d, BatchNorm3d, InstanceNorm1d, InstanceNorm2d):
    _module.__module__ = "cybn.torch"
