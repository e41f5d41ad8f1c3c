"""BatchNorm: running statistics, frozen, pooled, or taken anew by calibrate."""

from contextlib import contextmanager

import numpy as np

from ._checks import checked_bool
from ._functional import normalize_batch
from ._layer import TrackingLayer, as_count, check_channels, checked_counts
from ._moments import Moments, moments_of
from ._normalize import Arrays, exchange_with
from ._settings import settings_of
from ._store import commit


class BatchNorm(TrackingLayer):
    """Batch normalization with its parameters and running averages.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, where mean and variance are those of each
    channel in the batch while training [1]_, and the running ones otherwise.

    Parameters
    ----------
    num_features : int
        Channels, at least 1.
    axis : int
        **The channels' axis of the input, which is kept**: 1 as in PyTorch, -1 for channels last as
        in Keras and Flax.
    eps : float
        Finite and > 0, added to the variance.
    momentum : float or None
        From 0 to 1, the weight of a new batch in the running averages. With None they are the
        exact statistics of all values seen, each value weighing the same; they are then float64.
    affine : bool
        Whether there are a gamma and a beta.
    bias : bool
        False leaves out beta.
    track_running_stats : bool
        Whether to keep running averages. Without them, inference also uses the batch's statistics.
    activation : None, str or tuple
        Applied to the result, as in `cybn.batch_norm`: ``"relu"``, ``"relu6"``,
        ``("leaky_relu", slope)``, ``"hardswish"`` or ``"silu"``.
    group : mpi4py.MPI.Comm or object, optional
        Processes that train together, as in `cybn.batch_norm`: in training, the statistics are
        those of all their batches. It is not part of the state; copies and pickles have None, so
        assign the attribute there.
    dtype : dtype
        The dtype of the parameters and running averages: float16, bfloat16, float32 or float64.

    Attributes
    ----------
    gamma, beta : numpy.ndarray or None
        Shape (C,), initially 1 and 0. Update them in place or assign new ones.
    dgamma, dbeta : numpy.ndarray or None
        Their gradients, from the last `backward`.
    dresidual : numpy.ndarray or None
        The gradient of the residual, from the last `backward`.
    running_mean, running_var : numpy.ndarray or None
        Shape (C,), initially 0 and 1; the variance is the unbiased one.
    num_batches_tracked, num_values_tracked : int
        How many batches, and how many values of each channel, went into the running averages. The
        second is an array of shape (C,) once a mask has selected more of one channel than of
        another.
    cache : Cache or None
        What the last call kept for `backward`; None if that call was in inference.

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

    _to_train = "call train() first, and freeze() to train through the running statistics"
    _calibration = None  # while calibrate is at work: batches, and the Moments of their values
    _uncalibrated = None  # and the attributes as they were before

    def __init__(
        self,
        num_features,
        *,
        axis=1,
        eps=1e-5,
        momentum=0.1,
        affine=True,
        bias=True,
        track_running_stats=True,
        activation=None,
        group=None,
        dtype=np.float32,
    ):
        options = affine, bias, track_running_stats, activation, dtype
        super().__init__(num_features, axis, eps, momentum, *options)
        self._frozen = False
        if group is not None:
            exchange_with(group)  # which refuses what is no group
        self.group = group

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
        """Train through the running statistics, and leave them alone, until ``freeze(False)``.

        In training, `backward` still works, and gamma and beta get gradients. After `eval`, a
        frozen layer keeps nothing for it either. Return the layer.

        Raises
        ------
        ValueError
            If the layer does not track running statistics.
        """
        if not self.track_running_stats:
            raise ValueError("freeze: expected a layer with track_running_stats=True, got False")
        self._frozen = checked_bool(mode, "mode")
        return self

    def __call__(self, x, *, where=None, residual=None, training=None, out=None):
        """Return the normalized `x`; see `cybn.batch_norm`.

        Parameters
        ----------
        x : array_like
            ``num_features`` long on the channel axis.
        where : array_like of bool, optional
            The values that count, such as ``~np.isnan(x)``; the result is 0 at all others.
        residual : array_like, optional
            Added before the activation: of x's shape and dtype, or float32 beside an x of 16 bit.
        training : bool, optional
            Whether this call is in training. None means as `train` and `eval` have set it. With
            False, the running statistics are used, and nothing is kept for `backward`.
        out : numpy.ndarray, optional
            An array to store the result in.

        Returns
        -------
        numpy.ndarray
        """
        return self._call(training, x, where=where, residual=residual, out=out)

    def _normalize(self, training, x, where, residual, out):
        own = training and not self._frozen
        exchange = exchange_with(self.group) if own and self.group is not None else None
        try:
            geometry = check_channels(x, self.axis, self.num_features)
            tracks = own and self.track_running_stats
            pools = tracks and self.momentum is None
            if pools:
                self._check_running(geometry, x=x, where=where, residual=residual, out=out)
                seen = self._seen()
            by_batch = own or not self.track_running_stats
            averaged = self.track_running_stats and not pools
            running = (self.running_mean, self.running_var) if averaged else (None, None)
            momentum = 0.0 if self.momentum is None else self.momentum
            settings = settings_of(by_batch, momentum, self.eps, True, self.activation)
            arrays = Arrays(x, out, self.gamma, self.beta, *running, residual)
            counters = self._counters if tracks and averaged else None
            y, cache = normalize_batch(arrays, settings, self.axis, where, counters, exchange)
            if pools:
                batch = moments_of(cache) if exchange is None else Moments(*exchange.moments)
                self._pool(batch, *(self._calibration or seen))
            return y, cache
        except Exception as error:
            if exchange is not None:
                exchange.fail(error)
            raise

    def _counters(self, count):
        """Return what counts a batch of so many values, for `batch_norm`."""
        if not _any(count):
            return None
        seen = self.num_values_tracked + count
        seen = seen if type(seen) is int else as_count(seen)
        batches = self.num_batches_tracked + 1
        return self, {"num_batches_tracked": batches, "num_values_tracked": seen}

    def _shapes_of(self, count):
        return ((), (self.num_features,)) if count == "num_values_tracked" else ((),)

    def _pool(self, batch, batches, moments):
        """Merge the Moments of a batch with those of all values seen."""
        if not _any(batch.count):
            return
        batches, moments = batches + 1, moments + batch
        count, (mean, var) = moments.count, self._running()
        seen = np.where(count == 0, self.num_values_tracked, count)  # a channel may have had none
        attributes = {"num_batches_tracked": batches, "num_values_tracked": as_count(seen)}
        if self._calibration is not None:
            attributes["_calibration"] = batches, moments
        mean = np.where(count == 0, mean, moments.mean)
        self._track(mean, np.where(count < 2, var, moments.var(ddof=1)), attributes)

    def _running(self):
        """Return running mean and variance in one dimension."""
        return [np.asarray(array).reshape(-1) for array in (self.running_mean, self.running_var)]

    def _seen(self):
        """Return batches and Moments of all that went into the running statistics."""
        name = "num_values_tracked"
        seen = checked_counts(self.num_values_tracked, name, self._shapes_of(name))
        if not np.any(seen):
            return _empty_pool(self)
        mean, var = (np.where(np.equal(seen, 0), 0.0, array) for array in self._running())
        with np.errstate(all="ignore"):
            m2 = var.astype(np.float64) * np.maximum(seen - 1, 0)
        return self.num_batches_tracked, Moments(seen, mean, m2)

    def __getstate__(self):
        """Pickle and copy the layer without last call and group, as it is outside of calibrate."""
        before = {} if self._calibration is None else self._uncalibrated
        return super().__getstate__() | before | {"cache": None, "group": None}

    def _state_names(self):
        names = super()._state_names()
        if self.track_running_stats and self._pools:
            names["num_values_tracked"] = "num_values_tracked"
        return names


@contextmanager
def calibrate(*layers):
    """Give layers new running statistics: those of what passes through them in a ``with`` block.

    If a network meets data from a new domain, its batch norms still have the statistics of the old
    one. Some unlabeled batches of the new domain often suffice to repair most of the loss [1]_.

    In the block the layers train with ``momentum=None``: each batch is normalized by its own
    statistics, and the running statistics become those of all values that passed, and of no others.
    After the block, mode, momentum and cache are restored, also if the block raises. A layer
    through which nothing passed stays as it was, and so does a channel of which masks selected
    nothing. ``layer(x, training=False)`` does not count. If blocks for the same layer are nested,
    their values are pooled.

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
    modes = {name: getattr(layer, name) for name in ("_mode", "_frozen", "momentum", "cache")}
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
    return 0, Moments(0, zeros, zeros)


def _any(count):
    """Whether a batch has values, of any channel."""
    return count != 0 if isinstance(count, int) else count.any()
