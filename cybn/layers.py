"""Layers: parameters, running averages, train and eval."""

from collections.abc import Mapping
from operator import index

import numpy as np

from ._geometry import FLOAT32, FLOAT64, as_array, batch_geometry
from ._moments import Moments
from .functional import backward, check_settings, forward


class BatchNorm:
    """Batch normalization with its parameters and running averages.

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
        self.num_features = _checked_int(num_features, "num_features", least=1)
        self.axis = _checked_int(axis, "axis")
        check_settings(True, 0.0 if momentum is None else momentum, eps)
        self.eps = eps
        self.momentum = momentum
        self.affine = _checked_bool(affine, "affine")
        self.track_running_stats = _checked_bool(track_running_stats, "track_running_stats")
        self.dtype = _checked_dtype(dtype)
        self._mode, self._frozen = True, False
        self.gamma = np.ones(self.num_features, self.dtype) if affine else None
        self.beta = np.zeros(self.num_features, self.dtype) if affine else None
        self.dgamma = self.dbeta = self.cache = None
        self.reset_running_stats()

    def reset_running_stats(self):
        """Forget all batches: running mean 0, running variance 1, no batches tracked."""
        self.running_mean = self.running_var = None
        self.num_batches_tracked = self.num_values_tracked = 0
        if self.track_running_stats:
            dtype = FLOAT64 if self.momentum is None else self.dtype
            self.running_mean = np.zeros(self.num_features, dtype)
            self.running_var = np.ones(self.num_features, dtype)

    @property
    def training(self):
        """Whether calls use and track the batch's own statistics."""
        return self._mode and not self._frozen

    def train(self, mode=True):
        """Switch to training, or with False to inference. Returns the layer."""
        self._mode = _checked_bool(mode, "mode")
        return self

    def eval(self):
        """Switch to inference. Returns the layer."""
        return self.train(False)

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
        self._frozen = _checked_bool(mode, "mode")
        return self

    def __call__(self, x, *, out=None):
        """Return the normalized `x`; see `cybn.forward`.

        Parameters
        ----------
        x : array_like
            ``num_features`` long on the channel axis.
        out : numpy.ndarray, optional
            Receives the result.

        Returns
        -------
        numpy.ndarray
        """
        shape = x.shape if type(x) is np.ndarray else as_array(x, "x").shape
        if batch_geometry(shape, self.axis).parameters != (self.num_features,):
            raise ValueError(
                f"x: expected {self.num_features} channels on axis {self.axis}, got shape {shape}"
            )
        batch_statistics = self.training or not self.track_running_stats
        averaged = self.track_running_stats and not (self.training and self.momentum is None)
        y, cache = forward(
            x,
            self.gamma,
            self.beta,
            self.running_mean if averaged else None,
            self.running_var if averaged else None,
            training=batch_statistics,
            momentum=0.0 if self.momentum is None else self.momentum,
            eps=self.eps,
            axis=self.axis,
            out=out,
        )
        if self.training and self.track_running_stats and cache.count:
            if self.momentum is None:
                self._pool(cache)
            self.num_batches_tracked += 1
            self.num_values_tracked += cache.count
        self.cache = cache
        return y

    def backward(self, dy, *, out=None):
        """Return dx for the last call, and set `dgamma` and `dbeta`; see `cybn.backward`.

        Parameters
        ----------
        dy : array_like
            Gradient with respect to the last result, of its shape.
        out : numpy.ndarray, optional
            Receives dx; it may be `dy`.

        Returns
        -------
        numpy.ndarray

        Raises
        ------
        ValueError
            If the layer has not been called.
        """
        if self.cache is None:
            raise ValueError("backward: expected a call of the layer (forward) first, got none")
        dx, self.dgamma, self.dbeta = backward(dy, self.cache, out=out)
        return dx

    def _pool(self, cache):
        """Merge a batch into the exact statistics of all values seen."""
        seen = self.num_values_tracked
        before = Moments(seen, self.running_mean, self.running_var * max(seen - 1, 0))
        after = before + Moments(cache.count, cache.mean, cache.var * cache.count)
        self.running_mean[...] = after.mean
        self.running_var[...] = after.m2 / (after.count - 1)

    def _state_names(self):
        """Return the pairs (PyTorch's key, own attribute) of the state."""
        names = []
        if self.affine:
            names += [("weight", "gamma"), ("bias", "beta")]
        if self.track_running_stats:
            names += [(name, name) for name in ("running_mean", "running_var")]
            names += [("num_batches_tracked", "num_batches_tracked")]
            if self.momentum is None:
                names += [("num_values_tracked", "num_values_tracked")]
        return names

    def state_dict(self):
        """Return copies of parameters and running averages under PyTorch's keys.

        Returns
        -------
        dict of str to numpy.ndarray
            ``weight``, ``bias``, ``running_mean``, ``running_var``, ``num_batches_tracked``
            (int64, shape ()); with ``momentum=None`` also ``num_values_tracked``.
        """
        return {key: np.array(getattr(self, name)) for key, name in self._state_names()}

    def load_state_dict(self, state):
        """Copy a state into the layer, all of it or, if anything is wrong with it, nothing.

        Parameters
        ----------
        state : mapping of str to array_like
            As `state_dict` returns it.

        Raises
        ------
        TypeError, ValueError
            Naming the missing, unknown, misshapen or mistyped key.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping, got {type(state).__name__}")
        names = self._state_names()
        if missing := [key for key, _ in names if key not in state]:
            raise ValueError(f"state: missing key {', '.join(missing)}")
        if unknown := sorted(set(state) - {key for key, _ in names}):
            raise ValueError(f"state: unknown key {', '.join(map(str, unknown))}")
        loaded = [_checked_entry(state[key], getattr(self, name), key) for key, name in names]
        for (_, name), value in zip(names, loaded, strict=True):
            own = getattr(self, name)
            if isinstance(own, np.ndarray):
                own[...] = value
            else:
                setattr(self, name, int(value))

    def __getstate__(self):
        """Pickle and copy the layer without its last call."""
        return self.__dict__ | {"cache": None, "dgamma": None, "dbeta": None}

    def __repr__(self):
        return (
            f"{type(self).__name__}({self.num_features}, axis={self.axis}, eps={self.eps}, "
            f"momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}, dtype={self.dtype})"
        )


def _checked_int(value, name, least=-(2**63)):
    try:
        value = index(None if isinstance(value, bool) else value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}") from None
    if not least <= value < 2**60:
        raise ValueError(f"{name}: expected an int >= {least}, got {value}")
    return value


def _checked_bool(value, name):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    return bool(value)


def _checked_dtype(value):
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if value is None or (dtype is not FLOAT32 and dtype is not FLOAT64):
        raise TypeError(f"dtype: expected float32 or float64, got {value!r}")
    return dtype


def _checked_entry(value, own, key):
    """Return an entry of a state as an array, if it fits the layer's `own`."""
    name = f"state[{key!r}]"
    array = as_array(value, name)
    if array.dtype.kind not in ("fiu" if isinstance(own, np.ndarray) else "iu"):
        raise TypeError(f"{name}: expected real numbers, or an int for a count, got {array.dtype}")
    if array.shape != np.shape(own):
        raise ValueError(f"{name}: expected shape {np.shape(own)}, got {array.shape}")
    if not array.ndim and not 0 <= int(array) < 2**63:
        raise ValueError(f"{name}: expected a count from 0 to 2**63 - 1, got {array}")
    if isinstance(own, np.ndarray) and not own.flags.writeable:
        raise ValueError(f"{name}: expected a writable array in the layer, got a read-only one")
    return array
