"""Statistics that merge: of pieces of an array, of batches, of processes; standardizing by them."""

import sys

import numpy as np

from ._checks import checked_eps, checked_int
from ._functional import forward
from ._geometry import as_array, as_input, batch_geometry
from ._normalize import statistics

MOST = 2**62  # values of a channel, so that sums of two counts fit an int64
EPSILON = np.finfo(np.float64).eps


class Moments:
    """Count, mean and sum of squared deviations of the values of each channel.

    ``a + b`` are the moments of the values of both, ``sum(parts)`` and ``Moments.merge(parts)``
    those of all [1]_::

        delta = b.mean - a.mean
        mean = a.mean + delta * b.count / (a.count + b.count)
        m2 = a.m2 + b.m2 + delta**2 * a.count * b.count / (a.count + b.count)

    Parameters
    ----------
    count : int or array_like of int
        How many values; an array of the shape of `mean` where channels differ in that.
    mean, m2 : array_like
        The mean and ``sum((x - mean)**2)`` of each channel; 0 where `count` is.

    Attributes
    ----------
    count : int or numpy.ndarray
    mean, m2 : numpy.ndarray
        float64.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, or the two shapes that do not merge.

    References
    ----------
    .. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for
       Computing Sample Variances", Stanford University, STAN-CS-79-773, 1979.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> x = np.array([[1.0], [3.0], [8.0], [8.0], [8.0], [8.0]])
    >>> parts = [cybn.moments(part) for part in (x[:2], x[2:5], x[5:])]
    >>> total = cybn.Moments.merge(parts)
    >>> total
    Moments(count=6, mean=array([6.]), m2=array([50.]))
    >>> total.standardize([[6.0], [8.0]]).round(3)
    array([[0.   ],
           [0.693]])
    """

    __slots__ = ("count", "m2", "mean")
    __array_ufunc__ = None  # an array neither adds to Moments nor to each of them

    def __init__(self, count, mean, m2):
        self.mean, self.m2 = _as_float64(mean, "mean"), _as_float64(m2, "m2")
        if self.m2.shape != self.mean.shape:
            raise ValueError(f"m2: expected shape {self.mean.shape}, got {self.m2.shape}")
        self.count = _checked_count(count, self.mean.shape)

    def __add__(self, other):
        """Return the moments of the values of both."""
        if not isinstance(other, Moments):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"Moments: expected equal shapes, got {self.mean.shape} and {other.mean.shape}"
            )
        if np.any(np.greater(self.count, MOST - other.count)):
            raise ValueError(f"Moments: expected counts whose sum is at most {MOST}")
        return Moments(*merged(*((a.count, a.mean, a.m2) for a in (self, other))))

    def __radd__(self, other):
        """Return self + 0, with which `sum` starts."""
        return self if type(other) is int and other == 0 else NotImplemented

    @classmethod
    def merge(cls, parts):
        """Return the moments of all the values of `parts`.

        It merges neighbours, then neighbouring pairs, and so on. So errors grow with the logarithm
        of the number of parts, where those of ``sum(parts)`` grow with the number itself.

        Parameters
        ----------
        parts : iterable of Moments
            At least one, all of one shape.

        Returns
        -------
        Moments

        Raises
        ------
        TypeError, ValueError
            If there is something else among them, or nothing at all, or the shapes differ.

        Examples
        --------
        >>> import cybn
        >>> cybn.Moments.merge(cybn.moments([[value], [value + 1]]) for value in range(10)).count
        20
        """
        parts = list(parts)
        for part in parts:
            if not isinstance(part, cls):
                raise TypeError(f"parts: expected Moments, got {type(part).__name__}")
        if not parts:
            raise ValueError("parts: expected at least one Moments, got none")
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=False)
            parts = [a + b for a, b in pairs] + parts[len(parts) & ~1 :]
        return parts[0]

    def var(self, ddof=0):
        """Return the variance, ``m2 / (count - ddof)``.

        Parameters
        ----------
        ddof : int
            0 for the variance of these values, 1 for an unbiased estimate from a sample.

        Returns
        -------
        numpy.ndarray
            NaN where there are no more than `ddof` values.
        """
        divisor = self.count - checked_int(ddof, "ddof", least=0)
        with np.errstate(all="ignore"):
            return self.m2 / np.where(divisor > 0, divisor, np.nan)

    def std(self, ddof=0):
        """Return the standard deviation, the square root of ``var(ddof)``.

        Parameters
        ----------
        ddof : int
            As in `var`.

        Returns
        -------
        numpy.ndarray
        """
        with np.errstate(all="ignore"):
            return np.sqrt(self.var(ddof))

    def scale(self, ddof=0, eps=0.0):
        """Return what `standardize` divides by: ``sqrt(var(ddof) + eps)``, or 1.

        It is 1 for a constant channel. A channel also counts as constant when the result is at most
        ``2.2e-16 * abs(mean)``: the mean itself is rounded by that much.

        Parameters
        ----------
        ddof : int
            As in `var`.
        eps : float
            Finite and >= 0, added to the variance.

        Returns
        -------
        numpy.ndarray
            float64; NaN where there are no more than `ddof` values.
        """
        eps = checked_eps(eps, zero=True)
        with np.errstate(all="ignore"):
            scale = np.sqrt(self.var(ddof) + eps)
            return np.where(scale <= EPSILON * np.abs(self.mean), 1.0, scale)

    def standardize(self, x, *, axis=1, ddof=0, eps=0.0, out=None):
        """Return ``(x - mean) / scale(ddof, eps)``: mean 0 and deviation 1 for each channel.

        The moments need not be those of `x`: with those of the training set you standardize the
        test set. It computes in float64, and rounds each result once.

        Parameters
        ----------
        x : array_like
            Of any dtype that `batch_norm` takes.
        axis : int or tuple of int
            The channels', as in `moments`: `x` has the shape of `mean` there.
        ddof : int
            0 divides by the deviation of the values, 1 by an estimate from a sample.
        eps : float
            Finite and >= 0, added to the variance. Constant channels do not need it: they give
            ``x - mean``, which is exactly 0 where `x` has the constant.
        out : numpy.ndarray, optional
            An array to store the result in, of x's shape and dtype, C-contiguous and writable. It
            may be `x` itself.

        Returns
        -------
        numpy.ndarray
            x's shape and (converted) dtype, in C order.

        Raises
        ------
        TypeError, ValueError
            Naming the argument, before `out` is changed.

        See Also
        --------
        unstandardize : The inverse.
        cybn.sklearn.StandardScaler : The same in the manner of scikit-learn.

        Notes
        -----
        A NaN in `x` stays where it is, and changes nothing else. A NaN among the values that the
        moments were made of makes its whole channel NaN. Leave missing values out of them with
        ``cybn.moments(x, (1,), where=~np.isnan(x))``.

        Examples
        --------
        >>> import cybn, numpy as np
        >>> train, test = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 5.0], [6.0, 5.0]])
        >>> moments = cybn.moments(train)
        >>> moments.standardize(test)
        array([[0., 0.],
               [4., 0.]])
        >>> moments.unstandardize([[4.0, 0.0]])
        array([[6., 5.]])
        """
        return standardize(x, self.mean, self.scale(ddof, eps), axis, out)

    def unstandardize(self, y, *, axis=1, ddof=0, eps=0.0, out=None):
        """Return ``y * scale(ddof, eps) + mean``: the inverse of `standardize`.

        Parameters
        ----------
        y : array_like
            What `standardize` returned, or other values on that scale, such as predictions.
        axis, ddof, eps, out
            As in `standardize`.

        Returns
        -------
        numpy.ndarray
            y's shape and (converted) dtype, in C order.

        Raises
        ------
        TypeError, ValueError
            Naming the argument, before `out` is changed.
        """
        return unstandardize(y, self.mean, self.scale(ddof, eps), axis, out)

    def __repr__(self):
        return f"Moments(count={self.count!r}, mean={self.mean!r}, m2={self.m2!r})"


def merged(first, second):
    """Return count, mean and m2 of the values of both, each of which is such a tuple."""
    (first_count, first_mean, first_m2), (second_count, second_mean, second_m2) = first, second
    count = first_count + second_count
    weight = second_count / (count + (count == 0))
    with np.errstate(all="ignore"):  # NaN and infinity go their way, as in the kernels
        delta = second_mean - first_mean
        mean = first_mean + delta * weight
        m2 = first_m2 + second_m2 + delta * (delta * (first_count * weight))
    return count, mean, m2


def _as_float64(value, name):
    """Return a copy of real numbers."""
    array = as_array(value, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    with np.errstate(all="ignore"):
        return array.astype(np.float64)


def _checked_count(count, shape):
    if type(count) is int or not np.ndim(count):
        return checked_int(count, "count", least=0, most=MOST)
    count = as_array(count, "count")
    if count.dtype.kind not in "iu":
        raise TypeError(f"count: expected an int, or an array of them, got {count.dtype}")
    if count.shape != shape:
        raise ValueError(f"count: expected an int, or shape {shape}, got {count.shape}")
    if np.any((count < 0) | (count > MOST)):
        raise ValueError(f"count: expected values from 0 to {MOST}, got {count}")
    return count.astype(np.int64)


def standardize(x, mean, scale, axis=1, out=None):
    """Return ``(x - mean) / scale``, where they are float64 arrays of the channels' shape."""
    with np.errstate(all="ignore"):
        slope = 1 / scale
    return _affine(x, "x", mean, slope, None, axis, out)


def unstandardize(y, mean, scale, axis=1, out=None):
    """Return ``y * scale + mean``, as in `standardize`."""
    return _affine(y, "y", np.zeros_like(mean), scale, mean, axis, out)


def _affine(x, name, center, slope, shift, axis, out):
    """Return ``(x - center) * slope + shift``: inference with the variance 1 and no eps."""
    x = as_input(x, name)
    shape = batch_geometry(x.shape, axis).statistics
    if shape != center.shape:
        raise ValueError(f"{name}: expected shape {center.shape} on axis {axis}, got {shape}")
    running = {"running_mean": center, "running_var": np.ones(shape)}
    eps = sys.float_info.min  # which 1 absorbs
    return forward(x, slope, shift, **running, training=False, eps=eps, axis=axis, out=out)[0]


def moments_of(cache):
    """Return the Moments of the values that a call normalized by their own statistics."""
    some = cache.count != 0
    mean = np.where(some, cache.mean, 0.0)
    with np.errstate(all="ignore"):  # an overflow is infinite, as in the kernels
        m2 = np.where(some, cache.var, 0.0) * cache.count
    return Moments(cache.count, mean, m2)


def moments(x, axis=1, where=None):
    """Return count, mean and squared deviations of each channel of `x`, to be merged with others.

    They are as exact as those that `batch_norm` normalizes with. Each merge rounds. The ``sum`` of
    the moments of k pieces differs from the moments of the whole by at most 2.3e-16 * k, relative
    to ``abs(mean) + std`` in the mean, and to ``m2 * (1 + abs(mean) / std)`` in m2. Usually the
    difference is much smaller: 1e-14 for a thousand pieces around 0.

    Parameters
    ----------
    x : array_like
        At least 1 dimension; of any dtype that `batch_norm` takes.
    axis : int or tuple of int
        The channel axis, or several adjacent ones.
    where : array_like of bool, optional
        The values that count, as in `batch_norm`; ``~np.isnan(x)`` leaves out what is missing. All
        others are never read.

    Returns
    -------
    Moments
        Its arrays have the shape of the channels. Its count is an int, or with `where` an int64
        array.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    Mean and deviation of each channel of images, from pieces that fit into memory:

    >>> import cybn, numpy as np
    >>> images = np.random.default_rng(0).normal(5, 2, (100, 3, 8, 8))
    >>> total = sum(cybn.moments(images[i : i + 10]) for i in range(0, 100, 10))
    >>> total.count
    6400
    >>> np.allclose(total.std(), images.std(axis=(0, 2, 3)), rtol=1e-14)
    True
    """
    return moments_of(statistics(x, axis, where))
