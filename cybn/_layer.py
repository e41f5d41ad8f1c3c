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
from ._geometry import as_array, batch_geometry, check_running, remedies
from ._settings import checked_activation
from ._store import commit

COUNTS = "num_batches_tracked", "num_values_tracked"


class Layer:
    """The base class of all layers, for annotations and ``isinstance``.

    A layer has parameters, and is in training or in inference. In training, it remembers its last
    call for `backward`. In inference, it keeps nothing: `cache` is None, and `backward` raises an
    error.

    Attributes
    ----------
    gamma, beta : numpy.ndarray or None
        The parameters, or None if the layer has no such parameter.
    dgamma, dbeta : numpy.ndarray or None
        The gradients of gamma and beta from the last `backward`, or None before it.
    cache : Cache or None
        What the last call kept for `backward`; None if that call was in inference.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> def step(layer: cybn.Layer, rate: float) -> None:
    ...     layer.gamma -= rate * layer.dgamma
    >>> layer = cybn.LayerNorm(2)
    >>> y = layer(np.array([[1.0, 3.0]]))
    >>> dx = layer.backward(np.ones_like(y))
    >>> step(layer, 0.5)
    >>> layer.gamma.round(3)
    array([1.5, 0.5], dtype=float32)
    """

    _leading = ()  # names of the arguments that `repr` shows by position, and by keyword
    _options = ("eps", "affine", "bias", "dtype")
    _to_train = "call train() first"  # for a call that `backward` can use

    def __init__(self, shape, eps, affine, bias, dtype):
        check_settings(True, 0.0, eps)
        self.eps = eps
        self.affine = checked_bool(affine, "affine")
        self._bias = checked_bool(bias, "bias")
        self.dtype = checked_dtype(dtype)
        self.gamma = np.ones(shape, self.dtype) if affine else None
        self.beta = np.zeros(shape, self.dtype) if affine and bias else None
        self.dgamma = self.dbeta = self.cache = None
        self._mode = True

    @property
    def training(self):
        """Whether the layer is in training, as a new one is."""
        return self._mode

    def train(self, mode=True):
        """Switch to training, or to inference if `mode` is False. Return the layer."""
        self._mode = checked_bool(mode, "mode")
        return self

    def eval(self):
        """Switch to inference, in which a call keeps nothing for `backward`. Return the layer."""
        return self.train(False)

    def __call__(self, x, *, training=None, out=None):
        """Return the normalized `x`.

        Parameters
        ----------
        x : array_like
            The input. Its last axes have the lengths `normalized_shape`.
        training : bool, optional
            Whether this call is in training. None means as `train` and `eval` have set it. With
            False, nothing is kept for `backward`.
        out : numpy.ndarray, optional
            An array to store the result in.

        Returns
        -------
        numpy.ndarray
        """
        return self._call(training, x, out=out)

    def _call(self, training, x, **options):
        training = self._mode if training is None else checked_bool(training, "training")
        y, cache = self._normalize(training, x, **options)
        self.cache = cache if training else None
        return y

    def backward(self, dy, *, out=None):
        """Return dx for the last call, and set `dgamma` and `dbeta`; see `cybn.backward`.

        Parameters
        ----------
        dy : array_like
            The gradient with respect to the last result, of the same shape.
        out : numpy.ndarray, optional
            An array to store dx in. It may be `dy`.

        Returns
        -------
        numpy.ndarray

        Raises
        ------
        ValueError
            If the layer has not been called yet, or if its last call was in inference.
        """
        return self._backward(dy, out=out).dx

    def _backward(self, dy, **options):
        if self.cache is None:
            raise ValueError(
                "backward: expected a call of the layer (forward) in training first, got none, or "
                f"one in inference, which keeps nothing for backward; {self._to_train}"
            )
        gradients = backward(dy, self.cache, **options)
        _, self.dgamma, self.dbeta = gradients
        return gradients

    def _state_names(self):
        """Return PyTorch's names of the arrays, each with the name of the attribute here."""
        names = {"weight": "gamma", "bias": "beta"}
        return {key: name for key, name in names.items() if getattr(self, name) is not None}

    def state_dict(self):
        """Return copies of the parameters and running statistics under PyTorch's keys.

        Returns
        -------
        dict of str to numpy.ndarray
            ``weight`` (gamma) and ``bias`` (beta). If the layer tracks running statistics, also
            ``running_mean``, ``running_var`` and ``num_batches_tracked`` (int64, shape ()), and
            with ``momentum=None`` ``num_values_tracked``. What the layer was made with, such as
            eps, is not in it.
        """
        return {key: np.array(getattr(self, name)) for key, name in self._state_names().items()}

    def load_state_dict(self, state, prefix=""):
        """Copy a state into the layer. If anything is wrong with it, the layer does not change.

        Parameters
        ----------
        state : mapping of str to array_like
            What `state_dict` returned, or the state of a whole model. A value may be anything that
            NumPy can read, or a tensor of PyTorch on the CPU, with or without a gradient.
        prefix : str
            What the layer's keys begin with in the state of a model, such as ``"block1.bn."``.
            All other keys are ignored.

        Raises
        ------
        TypeError, ValueError
            If a key is missing or unknown, or its array has a wrong shape or dtype. The message
            names the key.

        Notes
        -----
        A count that is missing becomes 0. This makes no difference to inference. In training it
        matters only with ``momentum=None``: PyTorch's states have no ``num_values_tracked``, and
        without it nobody knows how much the loaded statistics weigh, so the next batch replaces
        them.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping, got {type(state).__name__}")
        if not isinstance(prefix, str):
            raise TypeError(f"prefix: expected a str, got {type(prefix).__name__}")
        if prefix:
            state = {key: state[key] for key in state if str(key).startswith(prefix)}
        names = {prefix + key: name for key, name in self._state_names().items()}
        if missing := [key for key, name in names.items() if not (key in state or name in COUNTS)]:
            own = {key: getattr(self, name) for key, name in self._state_names().items()}
            own = {key: array for key, array in own.items() if isinstance(array, np.ndarray)}
            remedy = remedies().for_keys(state, own)
            raise ValueError(f"state: missing key {', '.join(missing)}{remedy}")
        if unknown := sorted(str(key) for key in state if key not in names):
            raise ValueError(f"state: unknown key {', '.join(unknown)}")
        arrays, counts = [], {}
        for key, name in names.items():
            own, entry = getattr(self, name), f"state[{key!r}]"
            if name in COUNTS:
                counts[name] = checked_counts(state.get(key, 0), entry, self._shapes_of(name))
            else:
                arrays.append((own, _checked_entry(state[key], own, entry)))
        commit(arrays, (self, counts))

    def _shapes_of(self, count):
        """Return the shapes that a count may have in a state."""
        return ((),)

    def __getstate__(self):
        """Pickle and copy the layer without its last call."""
        last = "cache", "dgamma", "dbeta", "dresidual"
        return self.__dict__ | {name: None for name in last if name in self.__dict__}

    def __repr__(self):
        values = self.__dict__ | {"bias": self._bias}  # `bias` itself would be PyTorch's array
        arguments = [str(values[name]) for name in self._leading]
        arguments += [f"{name}={values[name]}" for name in self._options]
        return f"{type(self).__name__}({', '.join(arguments)})"


class ChannelLayer(Layer):
    """A layer that normalizes channels, and can take a residual and an activation along."""

    def __init__(self, channels, axis, eps, affine, bias, activation, dtype):
        self.axis = checked_int(axis, "axis")
        checked_activation(activation)
        self.activation = activation
        self.dresidual = None
        super().__init__(channels, eps, affine, bias, dtype)

    def __call__(self, x, *, residual=None, training=None, out=None):
        """Return ``activation(norm(x) + residual)``.

        Parameters
        ----------
        x : array_like
            The input, with as many channels on `axis` as the layer has.
        residual : array_like, optional
            Added before the activation: of x's shape and dtype, or float32 beside an x of 16 bit.
        training : bool, optional
            Whether this call is in training. None means as `train` and `eval` have set it. With
            False, nothing is kept for `backward`.
        out : numpy.ndarray, optional
            An array to store the result in.

        Returns
        -------
        numpy.ndarray
        """
        return self._call(training, x, residual=residual, out=out)

    def backward(self, dy, *, out=None, residual_out=None):
        """Return dx for the last call, and set `dgamma`, `dbeta` and `dresidual`.

        Parameters
        ----------
        dy : array_like
            The gradient with respect to the last result, of the same shape.
        out : numpy.ndarray, optional
            An array to store dx in. It may be `dy`.
        residual_out : numpy.ndarray, optional
            An array to store `dresidual` in. It may be `dy`, if `out` is not.

        Returns
        -------
        numpy.ndarray

        Raises
        ------
        ValueError
            If the layer has not been called yet, or if its last call was in inference.
        """
        gradients = self._backward(dy, out=out, residual_out=residual_out)
        self.dresidual = gradients.dresidual
        return gradients.dx

    def __repr__(self):
        if self.activation is None:
            return super().__repr__()
        return f"{super().__repr__()[:-1]}, activation={self.activation!r})"


class TrackingLayer(ChannelLayer):
    """A layer with running statistics of each channel, if it is to track them."""

    _leading = ("num_features",)
    _options = ("axis", "eps", "momentum", "affine", "bias", "track_running_stats", "dtype")

    def __init__(
        self,
        num_features,
        axis,
        eps,
        momentum,
        affine,
        bias,
        track_running_stats,
        activation,
        dtype,
    ):
        self.num_features = checked_int(num_features, "num_features", least=1)
        check_settings(True, 0.0 if momentum is None else momentum, eps)
        self.momentum = momentum
        self.track_running_stats = checked_bool(track_running_stats, "track_running_stats")
        super().__init__(self.num_features, axis, eps, affine, bias, activation, dtype)
        self.reset_running_stats()

    _pools = property(lambda self: self.momentum is None)  # of its own, whatever calibrate does

    def reset_running_stats(self):
        """Forget all batches: set the running mean to 0, the variance to 1, and the counts to 0."""
        commit([], (self, self._new_statistics()))

    def _new_statistics(self):
        """Return the attributes of a layer that has tracked nothing."""
        mean = var = None
        if self.track_running_stats:
            dtype = FLOAT64 if self._pools else self.dtype
            mean, var = np.zeros(self.num_features, dtype), np.ones(self.num_features, dtype)
        return {"running_mean": mean, "running_var": var, "num_batches_tracked": 0}

    def _check_running(self, geometry, **read):
        """Raise unless the running arrays can be written to, apart from these arrays."""
        read |= {"gamma": self.gamma, "beta": self.beta}
        check_running(self.running_mean, self.running_var, geometry, read)

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
    """Return the Geometry of `x`; raise unless it has that many channels on the axis."""
    shape = shape_of(x)
    geometry = batch_geometry(shape, axis)
    if geometry.parameters != (channels,):
        raise ValueError(
            f"x: expected {channels} channels on axis {axis}, got shape {shape}"
            f"{remedies().for_lengths(shape, (channels,), reduced=False)}"
        )
    return geometry


def checked_counts(value, name, shapes):
    """Return a count of values as an int, or for each channel as an array where they differ."""
    array = as_array(value, name)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected an int for a count, got {array.dtype}")
    if array.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")
    if np.any((array < 0) | (array > LARGEST)):
        raise ValueError(f"{name}: expected a count from 0 to 2**60, got {array}")
    return as_count(array)


def as_count(counts):
    """Return an int if that is the count of each channel, else an array."""
    first = int(counts.flat[0])
    return first if np.all(counts == first) else counts.astype(np.int64)


def _checked_entry(value, own, name):
    """Return an entry of a state as an array, if it fits the layer's `own`."""
    if hasattr(value, "requires_grad"):  # a tensor of PyTorch
        value = value.detach()
    array = as_array(value, name)
    if array.dtype.kind not in "fiu" and not is_float(array.dtype):
        remedy = remedies().for_dtype(array.dtype, name)
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}{remedy}")
    if array.shape != np.shape(own):
        raise ValueError(f"{name}: expected shape {np.shape(own)}, got {array.shape}")
    if not isinstance(own, np.ndarray) or not is_float(own.dtype):
        raise TypeError(f"{name}: expected a float array in the layer, got {type(own).__name__}")
    elif not own.flags.writeable:
        raise ValueError(f"{name}: expected a writable array in the layer, got a read-only one")
    return array
