from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import preprocessing

__all__ = ["StandardScaler"]

_Float = TypeVar("_Float", np.float32, np.float64)

class StandardScaler(preprocessing.StandardScaler):
    copy: bool
    with_mean: bool
    with_std: bool
    mean_: NDArray[np.float64]
    var_: NDArray[np.float64]
    scale_: NDArray[np.float64]
    n_samples_seen_: int | NDArray[np.int64]
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]
    def __init__(
        self, *, copy: bool = True, with_mean: bool = True, with_std: bool = True
    ) -> None: ...
    def fit(self, X: Any, y: object = None, sample_weight: ArrayLike | None = None) -> Self: ...
    def partial_fit(
        self, X: Any, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self: ...
    @overload
    def fit_transform(
        self, X: NDArray[_Float], y: object = None, **fit_params: Any
    ) -> NDArray[_Float]: ...
    @overload
    def fit_transform(self, X: Any, y: object = None, **fit_params: Any) -> Any: ...
    @overload
    def transform(self, X: NDArray[_Float], copy: bool | None = None) -> NDArray[_Float]: ...
    @overload
    def transform(self, X: Any, copy: bool | None = None) -> Any: ...
    @overload
    def inverse_transform(
        self, X: NDArray[_Float], copy: bool | None = None
    ) -> NDArray[_Float]: ...
    @overload
    def inverse_transform(self, X: Any, copy: bool | None = None) -> Any: ...
