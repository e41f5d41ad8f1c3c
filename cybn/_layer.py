"""What all layers have in common: parameters, the last call, the state, copies.

`Layer` has gamma, beta and their gradients; `TrackingLayer` adds the running statistics of each
channel. A layer gives `_normalize`, or a call of its own, and the names that its `repr` shows.
"""

from collections.abc import Mapping

import numpy as np

from ._backward import backward
from ._checks import (
    FLOAT64,
    LARGEST,
    check_settings,
    checked_bool,
    checked_dtype,
    checked_int,
    is_float,
)
from ._geometry import as_array, batch_geometry, check_running, commit

COUNTS = "num_batches_tracked", "num_values_tracked"


class Layer:
    """A normalization with parameters, which remembers its last call."""

    _has_beta = True
    _leading = ()  # names of the arguments that `repr` shows by position, and by keyword
    _options = ("eps", "affine", "dtype")

    def __init__(self, shape, eps, affine, dtype):
        check_settings(True, 0.0, eps)
        self.eps = eps
        self.affine = checked_bool(affine, "affine")
        self.dtype = checked_dtype(dtype)
        self.gamma = np.ones(shape, self.dtype) if affine else None
        self.beta = np.zeros(shape, self.dtype) if affine and self._has_beta else None
        self.dgamma = self.dbeta = self.cache = None
        self._mode = True

    @property
    def training(self):
        """Whether the layer is in training, as a new one is."""
        return self._mode

    def train(self, mode=True):
        """Switch to training, or with False to inference. Returns the layer."""
        self._mode = checked_bool(mode, "mode")
        return self

    def eval(self):
        """Switch to inference. Returns the layer."""
        return self.train(False)

    def __call__(self, x, *, out=None):
        """Return the normalized `x`.

        Parameters
        ----------
        x : array_like
            Of the lengths that the layer was made for.
        out : numpy.ndarray, optional
            Receives the result.

        Returns
        -------
        numpy.ndarray
        """
        y, self.cache = self._normalize(x, out)
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

    def _state_names(self):
        """Return PyTorch's keys of the state, each with the attribute that it stands for."""
        names = {"weight": "gamma", "bias": "beta"}
        return {key: name for key, name in names.items() if getattr(self, name) is not None}

    def state_dict(self):
        """Return copies of the parameters and running statistics under PyTorch's keys.

        Returns
        -------
        dict of str to numpy.ndarray
            ``weight`` (gamma) and ``bias`` (beta), and where they are tracked ``running_mean``,
            ``running_var`` and ``num_batches_tracked`` (int64, shape ()); with ``momentum=None``
            also ``num_values_tracked``.
        """
        return {key: np.array(getattr(self, name)) for key, name in self._state_names().items()}

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
        if missing := [key for key in names if key not in state]:
            raise ValueError(f"state: missing key {', '.join(missing)}")
        if unknown := sorted(str(key) for key in state if key not in names):
            raise ValueError(f"state: unknown key {', '.join(unknown)}")
        arrays, counts = [], {}
        for key, name in names.items():
            value = _checked_entry(state[key], own := getattr(self, name), key)
            if name in COUNTS:
                counts[name] = int(value)
            else:
                arrays.append((own, value))
        commit(arrays, (self, counts))

    def __getstate__(self):
        """Pickle and copy the layer without its last call."""
        return self.__dict__ | {"cache": None, "dgamma": None, "dbeta": None}

    def __repr__(self):
        arguments = [str(getattr(self, name)) for name in self._leading]
        arguments += [f"{name}={getattr(self, name)}" for name in self._options]
        return f"{type(self).__name__}({', '.join(arguments)})"


class TrackingLayer(Layer):
    """A layer with running statistics of each channel, if it is to track them."""

    _leading = ("num_features",)
    _options = ("axis", "eps", "momentum", "affine", "track_running_stats", "dtype")

    def __init__(self, num_features, axis, eps, momentum, affine, track_running_stats, dtype):
        self.num_features = checked_int(num_features, "num_features", least=1)
        self.axis = checked_int(axis, "axis")
        check_settings(True, 0.0 if momentum is None else momentum, eps)
        self.momentum = momentum
        self.track_running_stats = checked_bool(track_running_stats, "track_running_stats")
        super().__init__(self.num_features, eps, affine, dtype)
        self.reset_running_stats()

    _pools = property(lambda self: self.momentum is None)  # of its own, whatever calibrate does

    def reset_running_stats(self):
        """Forget all batches: running mean 0, running variance 1, no batches tracked."""
        commit([], (self, self._new_statistics()))

    def _new_statistics(self):
        """Return the attributes of a layer that has tracked nothing."""
        mean = var = None
        if self.track_running_stats:
            dtype = FLOAT64 if self._pools else self.dtype
            mean, var = np.zeros(self.num_features, dtype), np.ones(self.num_features, dtype)
        return {"running_mean": mean, "running_var": var, "num_batches_tracked": 0}

    def _check_running(self, **read):
        """Raise unless the running arrays can be written to, apart from these arrays."""
        read |= {"gamma": self.gamma, "beta": self.beta}
        check_running(self.running_mean, self.running_var, (self.num_features,), read)

    def _track(self, mean, var, attributes):
        """Store new running statistics, and attributes with them."""
        arrays = (self.running_mean, mean), (self.running_var, var)
        commit(arrays, (self, attributes))

    def _state_names(self):
        names = super()._state_names()
        if self.track_running_stats:
            tracked = "running_mean", "running_var", "num_batches_tracked"
            names |= {name: name for name in tracked}
        return names


def shape_of(x):
    """Return the shape of an array, or of what NumPy makes of `x`."""
    return x.shape if type(x) is np.ndarray else as_array(x, "x").shape


def check_channels(x, axis, channels):
    """Raise unless `x` has that many channels on the axis."""
    shape = shape_of(x)
    if batch_geometry(shape, axis).parameters != (channels,):
        raise ValueError(f"x: expected {channels} channels on axis {axis}, got shape {shape}")


def _checked_entry(value, own, key):
    """Return an entry of a state as an array, if it fits the layer's `own`."""
    name, is_count = f"state[{key!r}]", key in COUNTS
    array = as_array(value, name)
    real = array.dtype.kind in "fiu" or is_float(array.dtype)
    if not (array.dtype.kind in "iu" if is_count else real):
        raise TypeError(f"{name}: expected real numbers, or an int for a count, got {array.dtype}")
    if array.shape != np.shape(own):
        raise ValueError(f"{name}: expected shape {np.shape(own)}, got {array.shape}")
    if is_count:
        if not 0 <= int(array) <= LARGEST:
            raise ValueError(f"{name}: expected a count from 0 to 2**60, got {array}")
    elif not isinstance(own, np.ndarray) or not is_float(own.dtype):
        raise TypeError(f"{name}: expected a float array in the layer, got {type(own).__name__}")
    elif not own.flags.writeable:
        raise ValueError(f"{name}: expected a writable array in the layer, got a read-only one")
    return array
