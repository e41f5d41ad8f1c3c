"""cybn.sklearn: scikit-learn's own checks, its numbers, and its manners."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from checks import assert_nearest, refused
from hypothesis import given
from hypothesis import strategies as st
from levels import TESTS, run_python, run_python_unchecked
from numpy.testing import assert_allclose, assert_array_equal

import cybn

sklearn = pytest.importorskip("sklearn")

from scipy import sparse  # noqa: E402
from sklearn import preprocessing  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from cybn.sklearn import StandardScaler  # noqa: E402

OPTIONS = [
    {"with_mean": with_mean, "with_std": with_std}
    for with_mean in (True, False)
    for with_std in (True, False)
]
# Of the same formulas in float64: a few dozen roundings of 1.1e-16, times the values' mean in units
# of their deviation, which is drawn up to a few hundred.
TOLERANCE = 1e-12


@pytest.mark.filterwarnings("ignore::Warning")  # the checks', on their own use of scikit-learn
@parametrize_with_checks([StandardScaler(**options) for options in OPTIONS])
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_no_check_is_skipped():
    """SciPy, which scikit-learn has imported before, asks for a variable that is set in time."""
    pytest.importorskip("pandas")  # one of the checks needs it
    code = """
from cybn.sklearn import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
for result in check_estimator(StandardScaler(), on_skip=None, on_fail=None):
    assert result["status"] == "passed", result
"""
    run_python("-W", "ignore", "-c", code, SCIPY_ARRAY_API="1")


def assert_same_fit(actual, expected):
    for name in ("mean_", "var_", "scale_"):
        value, other = getattr(actual, name), getattr(expected, name)
        assert (value is None) == (other is None), name
        if other is not None:
            assert value.dtype == np.float64
            assert_allclose(value, other, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    assert_array_equal(actual.n_samples_seen_, expected.n_samples_seen_)
    assert np.ndim(actual.n_samples_seen_) == np.ndim(expected.n_samples_seen_)


@st.composite
def features(draw):
    """Numbers of a grid, so that a feature is constant or has digits; some missing, or all."""
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    largest = rng.choice([0, 1, 100], shape[1])
    x = rng.integers(-largest, largest + 1, shape) / 8 + rng.choice([0.0, 12.0], shape[1])
    x *= rng.choice([1e-3, 1.0, 1e5], shape[1])
    x[rng.random(shape) < draw(st.sampled_from([0.0, 0.3]))] = np.nan
    if draw(st.integers(0, 5)) == 0:
        x[:, 0] = np.nan
    return np.require(x, requirements=draw(st.sampled_from(["C", "F"])))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # scikit-learn's, where all is missing
class TestEqualsScikitLearn:
    @pytest.mark.parametrize("options", OPTIONS)
    @given(x=features(), test=features())
    def test_on_drawn_data(self, options, x, test):
        ours, theirs = StandardScaler(**options), preprocessing.StandardScaler(**options)
        assert_same_fit(ours.fit(x), theirs.fit(x))
        if test.shape[1] != x.shape[1]:
            test = x[::-1]
        for method in "transform", "inverse_transform":
            actual, expected = getattr(ours, method)(test), getattr(theirs, method)(test)
            assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)

    @given(x=features(), cuts=st.lists(st.integers(1, 39), max_size=6))
    def test_after_partial_fit_in_any_cut(self, x, cuts):
        """Of what fit sees at once. scikit-learn's stays NaN once a feature had no value."""
        whole, parts = StandardScaler().fit(x), StandardScaler()
        for start, end in pairwise([0, *sorted({cut for cut in cuts if cut < len(x)}), len(x)]):
            parts.partial_fit(x[start:end])
        assert_same_fit(parts, whole)
        assert_allclose(parts.transform(x), whole.transform(x), rtol=TOLERANCE, atol=TOLERANCE)

    @given(x=features(), seed=st.integers(0, 2**32 - 1))
    def test_with_weights(self, x, seed):
        """They are its numbers, and so are those of what follows."""
        weight = np.random.default_rng(seed).random(len(x)) + 0.1
        ours, theirs = StandardScaler(), preprocessing.StandardScaler()
        for scaler in ours, theirs:
            scaler.fit(x, sample_weight=weight).partial_fit(x).partial_fit(x, None, weight)
        for name in ("mean_", "var_", "scale_", "n_samples_seen_"):
            assert_array_equal(getattr(ours, name), getattr(theirs, name))

    @pytest.mark.parametrize("format", ["csr", "csc"])
    def test_of_sparse_matrices(self, rng, format):
        x = sparse.random_array((30, 4), density=0.5, format=format, rng=rng)
        ours = StandardScaler(with_mean=False).fit(x)
        theirs = preprocessing.StandardScaler(with_mean=False).fit(x)
        for method in "transform", "inverse_transform":
            actual, expected = (getattr(each, method)(x.tocsr()) for each in (ours, theirs))
            assert sparse.issparse(actual)
            assert_array_equal(actual.toarray(), expected.toarray())
        assert_allclose(ours.transform(x.toarray()), theirs.transform(x.toarray()), rtol=1e-15)
        assert_same_fit(ours.partial_fit(x.toarray()), theirs.partial_fit(x.toarray()))
        with pytest.raises(ValueError, match="center sparse"):
            StandardScaler().fit(x)


class TestDigits:
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
    def test_are_those_of_longdouble(self, rng, offset, dtype, order):
        x = np.require(rng.normal(offset, 1.0, (2000, 3)).astype(dtype), requirements=order)
        wide = x.astype(np.longdouble)
        exact = (wide - wide.mean(axis=0)) / wide.std(axis=0)
        scaler = StandardScaler()
        y = scaler.fit_transform(x)
        assert y.dtype == dtype
        assert y.flags[f"{order}_CONTIGUOUS"]
        assert_nearest(y, exact, 1.0, offset)
        back = scaler.inverse_transform(y)
        assert back.dtype == dtype
        assert np.all(np.abs(back - x) <= np.finfo(dtype).eps * (8 + np.abs(x)))

    @pytest.mark.parametrize("value", [0.1, 1e8 / 3])
    def test_constant_features_are_0_in_any_cut(self, value):
        x = np.full((1001, 2), value)
        scaler = StandardScaler()
        for part in np.array_split(x, 7):
            scaler.partial_fit(part)
        assert_array_equal(scaler.scale_, 1.0)
        assert_array_equal(scaler.transform(x), 0.0)

    def test_a_missing_value_concerns_its_feature_only(self, rng):
        x = rng.normal(size=(100, 3))
        expected = StandardScaler().fit(x)
        x[3, 1] = np.nan
        scaler = StandardScaler().fit(x)
        assert_array_equal(scaler.mean_[[0, 2]], expected.mean_[[0, 2]])
        assert_array_equal(scaler.var_[[0, 2]], expected.var_[[0, 2]])
        assert_allclose(scaler.mean_[1], np.nanmean(x[:, 1]), rtol=1e-13)
        assert_array_equal(scaler.n_samples_seen_, [100, 99, 100])
        assert scaler.n_samples_seen_.dtype == np.int64

    def test_a_feature_may_have_its_first_value_late(self):
        scaler = StandardScaler().fit(np.array([[1.0, np.nan], [3.0, np.nan]]))
        assert_array_equal(scaler.mean_, [2.0, np.nan])
        scaler.partial_fit(np.array([[2.0, 4.0], [2.0, 8.0]]))
        assert_array_equal(scaler.mean_, [2.0, 6.0])
        assert_array_equal(scaler.var_, [0.5, 4.0])

    def test_the_same_bits_on_any_number_of_threads(self, rng):
        x = rng.normal(5.0, 2.0, (40_000, 50)).astype(np.float32)
        x[rng.random(x.shape) < 0.01] = np.nan
        with cybn.num_threads(1):
            expected = StandardScaler().fit_transform(x)
        with cybn.num_threads(3):
            assert_array_equal(StandardScaler().fit_transform(x), expected)


class TestInfinity:
    @pytest.mark.parametrize("value", [np.inf, -np.inf])
    @pytest.mark.parametrize("others", [0.0, np.nan])
    def test_is_refused(self, value, others):
        scaler = StandardScaler().fit(np.arange(12.0).reshape(4, 3))
        x = np.full((4, 3), others)
        x[2, 1] = value
        for method in "transform", "inverse_transform", "partial_fit", "fit":
            with pytest.raises(ValueError, match=r"Input X contains infinity"):
                getattr(scaler, method)(x)

    def test_in_place_is_refused_first(self):
        scaler = StandardScaler(copy=False).fit(np.arange(12.0).reshape(4, 3))
        x = np.arange(12.0).reshape(4, 3)
        x[2, 1] = np.inf
        with refused(ValueError, "infinity", x):
            scaler.transform(x)

    def test_is_not_what_overflows(self):
        x = np.array([[1e308, 1.0], [1e308, 2.0], [1e308, 3.0]])
        assert_allclose(StandardScaler().fit_transform(x)[:, 1], [-(1.5**0.5), 0, 1.5**0.5])

    def test_is_not_looked_for_where_scikit_learn_does_not(self):
        scaler = StandardScaler().fit(np.arange(12.0).reshape(4, 3))
        with sklearn.config_context(assume_finite=True):
            assert np.isinf(scaler.transform(np.full((1, 3), np.inf))).all()


class TestCopy:
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_in_place(self, rng, dtype, order):
        x = np.require(rng.normal(size=(30, 3)).astype(dtype), requirements=order)
        before = x.copy()
        scaler = StandardScaler().fit(x)
        y = scaler.transform(x)
        assert_array_equal(x, before)
        assert np.shares_memory(scaler.transform(x, copy=False), x)
        assert_array_equal(x, y)
        back = scaler.inverse_transform(x)
        assert_array_equal(x, y)
        scaler.set_params(copy=False)
        assert np.shares_memory(scaler.inverse_transform(x), x)
        assert_array_equal(x, back)

    @pytest.mark.parametrize("copy", [True, False])
    def test_of_what_cannot_be_written(self, rng, copy):
        x = rng.normal(size=(30, 6))
        x.flags.writeable = False
        scaler = StandardScaler(copy=copy).fit(x)
        before = x.copy()
        scaler.transform(x)
        scaler.transform(x.tolist())
        assert_array_equal(x, before)

    @pytest.mark.parametrize("copy", [True, False])
    def test_of_every_other_column(self, rng, copy):
        x = rng.normal(size=(30, 6))
        expected = StandardScaler().fit_transform(x[:, ::2].copy())
        assert_array_equal(StandardScaler(copy=copy).fit_transform(x[:, ::2]), expected)


class TestManners:
    def test_it_is_a_standard_scaler_of_scikit_learn(self):
        assert isinstance(StandardScaler(), preprocessing.StandardScaler)
        assert repr(StandardScaler(with_mean=False)) == "StandardScaler(with_mean=False)"

    def test_clone_and_pickle(self, rng):
        x = rng.normal(size=(30, 3))
        scaler = StandardScaler(with_std=False).fit(x)
        fresh = clone(scaler)
        assert fresh.get_params() == scaler.get_params()
        with pytest.raises(NotFittedError):
            fresh.transform(x)
        loaded = pickle.loads(pickle.dumps(scaler))
        assert_array_equal(loaded.transform(x), scaler.transform(x))
        assert_same_fit(loaded.partial_fit(x), scaler.partial_fit(x))

    def test_attributes_can_be_set(self, rng):
        """As those who load a scaler from elsewhere do."""
        x = rng.normal(size=(30, 3))
        scaler = StandardScaler().fit(x)
        scaler.mean_, scaler.scale_ = np.ones(3), np.full(3, 4.0)
        assert_array_equal(scaler.transform(x), (x - 1) / 4)

    def test_in_pipelines_and_searches(self, rng):
        x, target = rng.normal(size=(80, 3)) * [1, 1e3, 1e-3], rng.integers(0, 2, 80)
        ours, theirs = (
            make_pipeline(scaler(), LogisticRegression()).fit(x, target)
            for scaler in (StandardScaler, preprocessing.StandardScaler)
        )
        assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-9)
        search = GridSearchCV(ours, {"standardscaler__with_mean": [True, False]}, cv=2, n_jobs=2)
        assert search.fit(x, target).best_score_ > 0

    @pytest.mark.parametrize("package", ["pandas", "polars"])
    def test_of_dataframes(self, rng, package):
        module = pytest.importorskip(package)
        frame = module.DataFrame({"a": rng.normal(size=9), "b": rng.normal(5.0, 2.0, 9)})
        scaler = StandardScaler().set_output(transform=package)
        y = scaler.fit_transform(frame)
        assert isinstance(y, module.DataFrame)
        assert list(y.columns) == list(scaler.get_feature_names_out()) == ["a", "b"]
        assert_array_equal(y.to_numpy(), StandardScaler().fit_transform(frame.to_numpy()))
        with pytest.raises(ValueError, match="feature names"):
            scaler.transform(frame[["b", "a"]])

    def test_names_without_a_dataframe(self, rng):
        scaler = StandardScaler().fit(rng.normal(size=(5, 2)))
        assert list(scaler.get_feature_names_out()) == ["x0", "x1"]
        assert list(scaler.get_feature_names_out(["p", "q"])) == ["p", "q"]

    @pytest.mark.parametrize("method", ["transform", "inverse_transform"])
    def test_another_number_of_features(self, rng, method):
        scaler = StandardScaler().fit(rng.normal(size=(5, 2)))
        with pytest.raises(ValueError, match=r"3"):
            getattr(scaler, method)(np.ones((5, 3)))

    def test_parameters_are_checked(self):
        with pytest.raises(ValueError, match=r"'with_mean' parameter"):
            StandardScaler(with_mean="yes").fit([[1.0], [2.0]])


def test_the_example():
    pytest.importorskip("matplotlib")
    example = TESTS.parent / "examples" / "short" / "standardize.py"
    before, after = run_python(example, MPLBACKEND="Agg").splitlines()
    assert before.startswith("as measured:  73%")
    assert after.startswith("standardized: 98%")


def test_without_scikit_learn_the_error_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None; import cybn; import cybn.sklearn"
    process = run_python_unchecked("-c", code)
    assert process.returncode == 1
    *_, said = process.stderr.splitlines()
    assert said.startswith("ImportError: cybn.sklearn:")
    assert 'pip install "cybn[sklearn]"' in said
