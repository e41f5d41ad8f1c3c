"""Standardizing features in the manner of scikit-learn, for pipelines: ``cybn[sklearn]``."""

from functools import partial

import numpy as np

from ._moments import Moments, moments, standardize, unstandardize

try:
    from scipy.sparse import issparse
    from sklearn import get_config, preprocessing
    from sklearn.base import _fit_context
    from sklearn.utils import assert_all_finite, check_array
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        'cybn.sklearn: expected scikit-learn 1.7 or later: pip install "cybn[sklearn]"'
    ) from error

__all__ = ["StandardScaler"]


class StandardScaler(preprocessing.StandardScaler):
    """Standardize features: ``(x - mean) / std``, with the statistics of a training set.

    It takes the place of `sklearn.preprocessing.StandardScaler`, of which it is a subclass, with
    the same parameters, attributes and methods. It is faster, runs on cybn's threads, and keeps the
    digits of features far from 0.

    Parameters
    ----------
    copy : bool
        False writes the results of `transform` and `inverse_transform` over their input, where that
        is a writable array of float32 or float64 in C or Fortran order.
    with_mean : bool
        Subtract the mean.
    with_std : bool
        Divide by the standard deviation.

    Attributes
    ----------
    mean_ : numpy.ndarray or None
        float64, of shape (n_features,). None if neither `with_mean` nor `with_std`.
    var_ : numpy.ndarray or None
        The biased variance, of which `scale_` is the root. None without `with_std`.
    scale_ : numpy.ndarray or None
        What features are divided by: 1 for constant ones. None without `with_std`.
    n_samples_seen_ : int or numpy.ndarray
        How many values, an array of int64 if features differ in that.
    n_features_in_ : int
    feature_names_in_ : numpy.ndarray
        If X had names, as a DataFrame has.

    Raises
    ------
    TypeError, ValueError
        From `fit`, `partial_fit` and the two transforms, with scikit-learn's own messages.

    See Also
    --------
    cybn.Moments.standardize : The same for NumPy arrays of any rank, without scikit-learn.

    Notes
    -----
    NaN is a missing value, as in scikit-learn: `fit` leaves it out, `transform` leaves it in place.
    Infinity is an error.

    Three things differ from scikit-learn on purpose:

    - The mean and the scale stay float64 when X is float32, and each result is rounded once. So the
      digits are right for features far from 0.
    - A feature counts as constant, and is not scaled, when its deviation is at most 2.2e-16 of its
      mean. scikit-learn's bound grows with the number of samples.
    - ``n_samples_seen_`` is an int unless features differ in it.

    With `sample_weight`, and for sparse matrices, scikit-learn computes the statistics, as fast and
    as exactly as it does. It also does so for all data that follow in `partial_fit`. Callbacks
    (``set_callbacks``, scikit-learn 1.9) are called in these cases only.

    Examples
    --------
    >>> import numpy as np
    >>> from cybn.sklearn import StandardScaler
    >>> train, test = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 5.0], [6.0, 5.0]])
    >>> scaler = StandardScaler().fit(train)
    >>> scaler.mean_, scaler.scale_
    (array([2., 5.]), array([1., 1.]))
    >>> scaler.transform(test)
    array([[0., 0.],
           [4., 0.]])
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Add the values of X to the statistics, which are then those of all that was seen.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            float32 and float64 are read as they are, other types are converted to float64. C and
            Fortran order, which DataFrames have, are equally fast.
        y : None
            Ignored.
        sample_weight : array_like of shape (n_samples,), optional
            The weights of samples: see Notes.

        Returns
        -------
        StandardScaler
            This one.
        """
        seen = getattr(self, "n_samples_seen_", None)
        weighted = sample_weight is not None or np.asarray(seen).dtype.kind == "f"
        if weighted or issparse(X):
            return super().partial_fit(X, y, sample_weight)
        X = validate_data(self, X, reset=seen is None, **_AS_FLOATS)
        total = _moments_without_nan(X, self)
        if seen is not None:
            total += self._moments_seen()
        self._set_statistics(total)
        return self

    def transform(self, X, copy=None):
        """Return ``(X - mean_) / scale_``.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        copy : bool, optional
            Overrides the parameter `copy` of the scaler.

        Returns
        -------
        numpy.ndarray
            float32 if X is, else float64.
        """
        check_is_fitted(self)
        if issparse(X):
            return super().transform(X, copy)
        return self._map(standardize, X, copy, partial(validate_data, self, reset=False))

    def inverse_transform(self, X, copy=None):
        """Return ``X * scale_ + mean_``: the inverse of `transform`.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        copy : bool, optional
            Overrides the parameter `copy` of the scaler.

        Returns
        -------
        numpy.ndarray
            float32 if X is, else float64.
        """
        check_is_fitted(self)
        if issparse(X):
            return super().inverse_transform(X, copy)
        return self._map(unstandardize, X, copy, check_array)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags

    def _moments_seen(self):
        """Return the Moments of which the attributes are made."""
        features = self.n_features_in_
        count = np.broadcast_to(self.n_samples_seen_, features)
        mean, var = (
            np.zeros(features) if each is None else np.where(count > 0, each, 0)
            for each in (self.mean_, self.var_)
        )
        return Moments(count, mean, var * count)

    def _set_statistics(self, total):
        same = np.all(total.count == np.max(total.count))
        self.n_samples_seen_ = int(np.max(total.count)) if same else total.count
        neither = not self.with_mean and not self.with_std
        self.mean_ = None if neither else np.where(total.count > 0, total.mean, np.nan)
        self.var_ = total.var() if self.with_std else None
        self.scale_ = total.scale() if self.with_std else None

    def _map(self, function, X, copy, validated):
        """Standardize, or the inverse, with the attributes as they are, perhaps in place."""
        copy = self.copy if copy is None else copy
        X = validated(X, force_writeable=not copy, **_AS_FLOATS)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X: expected {self.n_features_in_} features, got {X.shape[1]}")
        x, axis = _in_c_order(X)
        if not get_config()["assume_finite"]:
            _suspects(moments(x, axis), X, self)
        mean = self.mean_ if self.with_mean else np.zeros(X.shape[1])
        scale = self.scale_ if self.with_std else np.ones(X.shape[1])
        in_place = not copy and x.flags.c_contiguous and x.flags.aligned
        y = function(x, mean, scale, axis, out=x if in_place else None)
        return y if axis else y.T


# cybn's sums show whether there is an infinity, in a fraction of the time of scikit-learn's check.
_AS_FLOATS = {"dtype": (np.float64, np.float32), "ensure_all_finite": False}


def _in_c_order(X):
    """Return X and the axis of the features, or both transposed if X is in Fortran order."""
    return (X.T, 0) if X.flags.f_contiguous else (X, 1)


def _suspects(total, X, estimator):
    """Return which features may have a NaN; raise if X has an infinity.

    Either makes the mean of its feature NaN or infinite. So does an overflow.
    """
    suspects = np.flatnonzero(~np.isfinite(total.mean))
    if suspects.size and np.isinf([f.reduce(X, axis=None) for f in (np.fmin, np.fmax)]).any():
        name = type(estimator).__name__
        assert_all_finite(X, allow_nan=True, estimator_name=name, input_name="X")
    return suspects


def _moments_without_nan(X, estimator):
    """Return the Moments of each feature, of what is not missing; raise if X has an infinity."""
    x, axis = _in_c_order(X)
    total = moments(x, axis)
    features = _suspects(total, X, estimator)
    if not features.size:
        return total
    if features.size < X.shape[1]:
        x = x.take(features, axis)
    present = moments(x, (axis,), where=~np.isnan(x))
    count, mean, m2 = np.full(X.shape[1], total.count), total.mean, total.m2
    count[features], mean[features], m2[features] = present.count, present.mean, present.m2
    return Moments(count, mean, m2)
