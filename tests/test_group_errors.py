"""Groups: an error of one member, or a disagreement, is an error of all."""

import numpy as np
import pytest
from groups import run_members
from levels import run_python

import cybn


def errors_of(size, member):
    results = run_members(size, member)
    assert all(isinstance(result, (TypeError, ValueError)) for result in results), results
    return [str(result) for result in results]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"x": np.ones((4, 3))}, {"x": np.ones((4, 2000))}, "channels .* 3 on member 0, 2000 on "),
        ({"eps": 1e-5}, {"eps": 1e-3}, "eps .* 1e-05 on member 0, 0.001 on member 1"),
        ({"x": np.ones((4, 3), np.float32)}, {}, "dtype .* float32 on member 0, float64 on member"),
        ({"axis": 5}, {}, "axis: expected -2 to 1"),
        ({"momentum": 2}, {}, "momentum: expected a value from 0 to 1"),
        ({"gamma": np.ones(4)}, {}, "gamma: expected shape"),
        ({"out": np.ones((4, 4))}, {}, "out: expected shape"),
        ({"where": np.ones((4, 4), bool)}, {}, "where: expected shape"),
        ({"x": "text"}, {}, "x: "),
        ({"training": 1}, {}, "training: expected a bool"),
    ],
)
def test_an_error_of_one_is_an_error_of_all(rng, first, second, message):
    running = [(np.zeros(3), np.ones(3)) for _ in range(3)]

    def member(rank, group):
        own = first if rank == 0 else second
        mean, var = running[rank]
        given = {"x": rng.normal(size=(4, 3)), "running_mean": mean, "running_var": var} | own
        if given["x"] is not first.get("x") and len(np.shape(given["x"])) == 2:
            channels = given["x"].shape[1]
            given |= {"running_mean": np.zeros(channels), "running_var": np.ones(channels)}
        cybn.batch_norm(group=group, **given)

    for error in errors_of(3, member):
        with pytest.raises(ValueError, match=message):
            raise ValueError(error)
    assert all(np.all(mean == 0) and np.all(var == 1) for mean, var in running)


def test_the_others_hear_whose_error_it_is():
    def member(rank, group):
        cybn.batch_norm(np.ones((4, 3)), gamma=np.ones(3 + (rank == 1)), group=group)

    own = "gamma: expected shape (3,) or (1, 3) or (4, 3), got (4,)"
    told = "group: expected all members to join in, got an error on member 1: ValueError: gamma: "
    errors = errors_of(3, member)
    assert errors[1].startswith(own.partition(" or")[0])
    assert errors[0].startswith(told)
    assert errors[2].startswith(told)


def test_a_layer_and_backward_tell_the_others_too():
    def layer(rank, group):
        cybn.BatchNorm(3, group=group)(np.ones((4, 3 + rank)))

    assert all("expected 3 channels on axis 1" in error for error in errors_of(2, layer))

    def backward(rank, group):
        x = np.arange(12.0).reshape(4, 3)
        _, cache = cybn.batch_norm(x, group=group)
        cybn.backward(x[rank:], cache)

    assert all("dy: expected shape (4, 3)" in error for error in errors_of(2, backward))


def test_different_calls_are_an_error():
    def member(rank, group):
        x = np.arange(12.0).reshape(4, 3)
        _, cache = cybn.batch_norm(x, group=group)
        cybn.backward(x, cache) if rank else cybn.batch_norm(x, group=group)

    for error in errors_of(2, member):
        assert "call on all members, got forward on member 0, backward on member 1" in error


@pytest.mark.parametrize("masked", [False, True])
def test_a_single_value_in_all_is_an_error_everywhere(masked):
    def member(rank, group):
        x = np.ones((2 if masked else rank, 3))
        where = np.array([[rank == 1], [False]]) if masked else None
        cybn.batch_norm(x, where=where, group=group)

    for error in errors_of(2, member):
        assert "expected more than 1 value per channel over all members of the group" in error


@pytest.mark.parametrize("group", [3, object(), [1, 2]])
def test_what_is_no_group(group):
    for call in (
        lambda: cybn.batch_norm(np.ones((4, 3)), group=group),
        lambda: cybn.BatchNorm(3, group=group),
    ):
        with pytest.raises(TypeError, match="group: expected an mpi4py communicator, or an object"):
            call()


def test_what_allgather_returns_is_checked():
    class Wrong:
        size = 2

        def allgather(self, vector):
            return vector

    with pytest.raises(ValueError, match=r"group: expected shape \(2, 2064\) from allgather"):
        cybn.batch_norm(np.ones((4, 3)), group=Wrong())


def test_import_cybn_imports_no_group():
    code = "import cybn, sys; print([m for m in sys.modules if 'mpi4py' in m or '_group' in m])"
    assert run_python("-c", code).strip() == "[]"
