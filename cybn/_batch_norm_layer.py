"""BatchNorm: running statistics, frozen, pooled, or taken anew by calibrate."""

from contextlib import contextmanager

import numpy as np

from ._checks import checked_bool, checked_int
from ._functional import normalize_batch
from ._geometry import commit
from ._layer import TrackingLayer, check_channels
from ._moments import Moments, moments_of
from ._normalize import Arrays
from ._settings import settings_of


class BatchNorm(TrackingLayer):
    """Batch normalization with its parameters and running averages.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, where mean and variance are those of each
    channel in the batch while training [1]_, and the running ones otherwise.

    Parameters
    ----------
    num_features : int
        Channels, at least 1.
    axis : int
        The channel axis of the input.
    eps : float
        Finite and > 0, added to the variance.
    momentum : float or None
        From 0 to 1, the weight of a new batch in the running averages. With None they are the
        exact statistics of all values seen, each value weighing the same; they are then float64.
    affine : bool
        Whether there are a gamma and a beta.
    track_running_stats : bool
        Whether there are running averages. Without them inference, too, uses the batch's own.
    dtype : dtype
        Of the parameters and running averages, float32 or float64.

    Attributes
    ----------
    gamma, beta : numpy.ndarray or None
        Shape (C,), at first 1 and 0. Update them in place or assign new ones.
    dgamma, dbeta : numpy.ndarray or None
        Their gradients, from the last `backward`.
    running_mean, running_var : numpy.ndarray or None
        Shape (C,), at first 0 and 1; the variance is the unbiased one.
    num_batches_tracked, num_values_tracked : int
        How many batches, and values of a channel, went into the running averages.
    cache : Cache or None
        That of the last call.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    .. [1] S. Ioffe, C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by
       Reducing Internal Covariate Shift", ICML 2015. Conventions are those of PyTorch.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> bn = cybn.BatchNorm(3)
    >>> x = np.random.default_rng(0).normal(5, 2, (8, 3, 4, 4)).astype(np.float32)
    >>> y = bn(x)
    >>> bool(abs(y.mean()) < 1e-6)
    True
    >>> dx = bn.backward(np.ones_like(y))
    >>> bn.dbeta
    array([128., 128., 128.], dtype=float32)
    >>> y = bn.eval()(x)
    """

    _calibration = None  # while calibrate is at work: batches, values of a channel, their Moments
    _uncalibrated = None  # and the attributes as they were before

    def __init__(
        self,
        num_features,
        *,
        axis=1,
        eps=1e-5,
        momentum=0.1,
        affine=True,
        track_running_stats=True,
        dtype=np.float32,
    ):
        super().__init__(num_features, axis, eps, momentum, affine, track_running_stats, dtype)
        self._frozen = False

    def _new_statistics(self):
        pool = None if self._calibration is None else _empty_pool(self)
        return super()._new_statistics() | {"num_values_tracked": 0, "_calibration": pool}

    @property
    def training(self):
        """Whether calls use and track the batch's own statistics."""
        return self._mode and not self._frozen

    @property
    def _pools(self):
        momentum = self._uncalibrated["momentum"] if self._calibration else self.momentum
        return momentum is None

    def freeze(self, mode=True):
        """Use the running statistics whatever `train` says, until ``freeze(False)``.

        gamma and beta still get gradients. Returns the layer.

        Raises
        ------
        ValueError
            If the layer does not track running statistics.
        """
        if not self.track_running_stats:
            raise ValueError("freeze: expected a layer with track_running_stats=True, got False")
        self._frozen = checked_bool(mode, "mode")
        return self

    def __call__(self, x, *, where=None, out=None):
        """Return the normalized `x`; see `cybn.forward`.

        Parameters
        ----------
        x : array_like
            ``num_features`` long on the channel axis.
        where : array_like of bool, optional
            The values that count; `y` is 0 at the others.
        out : numpy.ndarray, optional
            Receives the result.

        Returns
        -------
        numpy.ndarray
        """
        check_channels(x, self.axis, self.num_features)
        tracks = self.training and self.track_running_stats
        pools = tracks and self.momentum is None
        if pools:
            self._check_running(x=x, where=where, out=out)
            checked_int(self.num_values_tracked, "num_values_tracked", least=0)
        averaged = self.track_running_stats and not pools
        running = (self.running_mean, self.running_var) if averaged else (None, None)
        training = self.training or not self.track_running_stats
        settings = settings_of(training, 0.0 if self.momentum is None else self.momentum, self.eps)
        arrays = Arrays(x, out, self.gamma, self.beta, *running)
        counters = self._counters if tracks and averaged else None
        y, cache = normalize_batch(arrays, settings, self.axis, where, counters)
        if pools:
            self._pool(cache)
        self.cache = cache
        return y

    def _counters(self, count):
        """Return what counts a batch of so many values, for `batch_norm`."""
        if not (count := _of_every_channel(count)):
            return None
        counters = {
            "num_batches_tracked": self.num_batches_tracked + 1,
            "num_values_tracked": self.num_values_tracked + count,
        }
        return self, counters

    def _pool(self, cache):
        """Merge the statistics of a batch with those of all values seen."""
        if not (count := _of_every_channel(cache.count)):
            return
        batches, seen, moments = self._calibration or self._seen()
        batches, seen, moments = batches + 1, seen + count, moments + moments_of(cache)
        attributes = {"num_batches_tracked": batches, "num_values_tracked": seen}
        if self._calibration is not None:
            attributes["_calibration"] = batches, seen, moments
        self._track(moments.mean, moments.var(ddof=1), attributes)

    def _seen(self):
        """Return batches, values and Moments of all that went into the running statistics."""
        seen = self.num_values_tracked
        with np.errstate(all="ignore"):
            m2 = np.asarray(self.running_var, np.float64) * max(seen - 1, 0)
        return self.num_batches_tracked, seen, Moments(seen, self.running_mean, m2)

    def __getstate__(self):
        """Pickle and copy the layer without its last call, and as it is outside of calibrate."""
        before = {} if self._calibration is None else self._uncalibrated
        return super().__getstate__() | before

    def _state_names(self):
        names = super()._state_names()
        if self.track_running_stats and self._pools:
            names["num_values_tracked"] = "num_values_tracked"
        return names


@contextmanager
def calibrate(*layers):
    """Give layers the running statistics of what passes through them in the body, and no other.

    A network meets a new domain, and its batch norms have the statistics of the old one; those of
    some unlabeled batches of the new one often repair most of that [1]_. In the body the layers
    train with ``momentum=None``: each batch is normalized by its own statistics, and the running
    ones become exactly those of all values. Mode and momentum are restored after it, also if the
    body raises. A layer through which nothing passed stays as it was. Inside of another calibrate
    of a layer its values are pooled with those of the outer one.

    Parameters
    ----------
    *layers : BatchNorm
        With ``track_running_stats=True``.

    Raises
    ------
    TypeError, ValueError
        If something else is among them, before any layer is changed.

    References
    ----------
    .. [1] Y. Li, N. Wang, J. Shi, J. Liu, X. Hou, "Revisiting Batch Normalization For Practical
       Domain Adaptation", ICLR 2017 workshop.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> bn = cybn.BatchNorm(1).eval()
    >>> with cybn.calibrate(bn):
    ...     for batch in np.array([[1.0], [3.0]]), np.array([[8.0]] * 4):
    ...         y = bn(batch)
    >>> bn.running_mean, bn.running_var, bn.training
    (array([6.], dtype=float32), array([10.], dtype=float32), False)
    """
    for layer in layers:
        if not isinstance(layer, BatchNorm):
            raise TypeError(f"layers: expected only BatchNorm, got {type(layer).__name__}")
        if not layer.track_running_stats:
            raise ValueError("layers: expected track_running_stats=True, got False")
    unique = list({id(layer): layer for layer in layers}.values())
    outside = [(layer, _modes(layer)) for layer in unique]
    inside = [(layer, _calibrating(layer)) for layer in unique]
    try:  # twice, should an interrupt come before the first
        try:
            commit([], *inside)
            yield
        finally:
            commit([], *outside)
    finally:
        commit([], *outside)


def _modes(layer):
    """Return the attributes that are restored after calibrate; the outermost one ends it."""
    modes = {name: getattr(layer, name) for name in ("_mode", "_frozen", "momentum")}
    if layer._calibration is None:
        modes |= {"_calibration": None, "_uncalibrated": None}
    return modes


def _calibrating(layer):
    """Return the attributes of a layer that calibrate has at work."""
    modes = {"_mode": True, "_frozen": False, "momentum": None}
    if layer._calibration is None:
        modes |= {"_calibration": _empty_pool(layer), "_uncalibrated": _modes(layer)}
    return modes


def _empty_pool(layer):
    zeros = np.zeros(layer.num_features)
    return 0, 0, Moments(0, zeros, zeros)


def _of_every_channel(count):
    """Return the values of a channel, which a mask selects alike in each, as an int."""
    return count if isinstance(count, int) else int(count[0])
