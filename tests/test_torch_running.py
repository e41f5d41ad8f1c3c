"""What batch norms of cybn.torch keep: running statistics, and how many batches they are of."""

import copy
import gc
import warnings

from torch_peer import torch

import pytest
from torch import nn
from torch.testing import assert_close

import cybn.torch


def test_running_statistics_that_are_not_contiguous():
    x = torch.randn(6, 4)
    usual, apart = torch.zeros(2, 4), torch.zeros(2, 8)[:, ::2]
    for running in (usual, apart):
        for _ in range(3):
            cybn.torch.batch_norm(x, *running, training=True)
    assert torch.equal(usual, apart)
    assert usual[0].all()


def pair(**options):
    """Return one of cybn's batch norms, and PyTorch's."""
    return cybn.torch.BatchNorm1d(4, **options), nn.BatchNorm1d(4, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_are_counted_as_by_pytorch(dtype):
    modules, x = pair(), torch.randn(6, 4, dtype=dtype)
    for change in (
        lambda _: None,
        lambda norm: norm.eval(),
        lambda norm: norm.train(),
        lambda norm: norm.num_batches_tracked.fill_(41),
        lambda norm: norm.load_state_dict(copy.deepcopy(norm.state_dict())),
        lambda norm: setattr(norm, "num_batches_tracked", torch.tensor(7)),
        lambda norm: setattr(norm, "num_batches_tracked", torch.tensor(7.0)),
        lambda norm: setattr(norm.num_batches_tracked, "data", torch.tensor(9)),
        lambda norm: setattr(norm, "running_mean", None) or setattr(norm, "running_var", None),
        lambda norm: setattr(norm, "num_batches_tracked", None),
        lambda norm: norm.eval(),
    ):
        for module in modules:
            change(module)
        for _ in range(2):
            assert_close(*(module(x) for module in modules), rtol=0.01, atol=0.01)
        assert_close(*(module.state_dict() for module in modules))


def test_copies_count_for_themselves():
    norm, x = cybn.torch.BatchNorm1d(4), torch.randn(6, 4)
    norm(x)
    other = copy.deepcopy(norm)
    for _ in range(2):
        other(x)
    assert (norm.num_batches_tracked, other.num_batches_tracked) == (1, 3)


def test_autograd_knows_what_has_been_changed():
    norm, x = cybn.torch.BatchNorm1d(4), torch.randn(6, 4)
    kept = norm.running_mean, norm.running_var, norm.num_batches_tracked
    weight = torch.ones(4, requires_grad=True)
    products = [(weight * each).sum() for each in kept]
    norm.eval()(x)
    products[0].backward(retain_graph=True)
    norm.train()(x)
    for product in products:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()


def test_a_pruned_parameter_is_not_taken_for_the_old_one():
    """Its memory begins where that of the old one did."""
    norm, x = cybn.torch.BatchNorm1d(4), torch.randn(6, 4)
    norm(x)
    for each in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        each.data = each.data[:2]
    assert_close(norm(x[:, :2]), nn.BatchNorm1d(2)(x[:, :2]), rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="should contain 4 elements not 2"):
        norm(x)
    norm.weight.data.copy_(torch.tensor([3.0, 5.0]))
    norm.weight.data = norm.weight.data[:1].expand(2)
    assert_close(norm(x[:, :2]), 3 * nn.BatchNorm1d(2)(x[:, :2]), rtol=1e-4, atol=1e-5)


def test_a_square_parameter_that_is_transposed():
    norm, x = cybn.torch.LayerNorm((3, 3)), torch.randn(2, 3, 3)
    norm.weight.data = torch.arange(9.0).view(3, 3)
    for _ in range(2):
        expected = nn.functional.layer_norm(x, (3, 3), norm.weight, norm.bias)
        assert_close(norm(x), expected)
        norm.weight.data = norm.weight.data.t()


def unaligned(tensor):
    """Return a copy whose memory begins at an odd address."""
    memory = bytearray(tensor.nbytes + 16)
    start = 1 + -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % 8
    copied = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=start)
    copied = copied.view(tensor.shape)
    copied.copy_(tensor)
    assert copied.data_ptr() % 2
    return copied


@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm"])
def test_memory_that_is_not_aligned(norm):
    x, dy, weight, bias, residual = (torch.randn(each) for each in ((6, 4), (6, 4), 4, 4, (6, 4)))
    results = []
    for change in (torch.clone, unaligned):
        given = [change(each).requires_grad_() for each in (x, weight, bias, residual)]
        if norm == "batch_norm":
            options = {"residual": given[3], "activation": "relu"}
            y = cybn.torch.batch_norm(given[0], None, None, *given[1:3], True, **options)
        else:
            y = cybn.torch.layer_norm(given[0], (4,), *given[1:3]) + given[3]
        y.backward(change(dy))
        results.append([y, *(each.grad for each in given)])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_running_statistics_that_are_not_aligned():
    x, usual = torch.randn(6, 4), torch.zeros(2, 4)
    apart = unaligned(usual)
    for running in (usual, apart):
        cybn.torch.batch_norm(x, *running, training=True)
    assert torch.equal(usual, apart)
    assert usual.all()
    assert torch.equal(*(cybn.torch.batch_norm(x, *running) for running in (usual, apart)))


def test_running_statistics_of_one_value_in_memory_are_pytorchs():
    """It stores one of the channels' there, and not always that of the same channel."""
    x, results = torch.randn(6, 4), []
    for function in (cybn.torch.batch_norm, nn.functional.batch_norm):
        mean, var = torch.zeros(4), torch.ones(1).expand(4)
        results.append([function(x, mean, var, training=True), mean])
        assert var[0] != 1
    assert_close(*results)


def test_counters_in_other_places():
    for kept in (None, torch.tensor(3), nn.Parameter(torch.tensor(3.0), requires_grad=False)):
        modules = pair()
        for module in modules:
            del module.num_batches_tracked
            module.num_batches_tracked = copy.deepcopy(kept)
            module(torch.randn(6, 4))
        assert modules[0].num_batches_tracked == modules[1].num_batches_tracked


def test_inference_tensors_are_not_written_to_elsewhere():
    with torch.inference_mode():
        modules = pair()
        for module in modules:
            module(torch.randn(6, 4))
    for module in modules:
        with (
            pytest.raises(RuntimeError, match="Inplace update to inference tensor"),
            torch.no_grad(),
        ):
            module(torch.randn(6, 4))


def test_a_number_of_groups_that_is_a_tensor():
    x, groups = torch.randn(2, 4, 3), torch.tensor(2)
    for value in (2, 1):
        groups.fill_(value)
        assert torch.equal(cybn.torch.group_norm(x, groups), cybn.torch.group_norm(x, value))
    with pytest.raises(TypeError):
        cybn.torch.group_norm(x, 2.0)


def test_what_is_no_number_is_pytorchs_error():
    x, running = torch.randn(6, 4), (torch.zeros(4), torch.ones(4))
    for options in ({"eps": None}, {"eps": "1e-5"}, {"momentum": None}):
        errors = []
        for function in (cybn.torch.batch_norm, nn.functional.batch_norm):
            with pytest.raises(TypeError) as error:
                function(x, *running, training=True, **options)
            errors.append(str(error.value))
        assert errors[0] == errors[1]


def test_tracing_leaves_no_tensors_behind():
    """Its sizes are tensors."""
    norm = cybn.torch.LayerNorm(4)

    def left():
        torch.jit.trace(norm, torch.randn(2, 4), check_trace=False)
        gc.collect()
        return sum(type(each) is torch.Tensor for each in gc.get_objects())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert left() == left()


def test_operators_refuse_what_is_not_cybns():
    settings = "layer", 1, True, 0.0, 1e-5, None, 0.0
    with pytest.raises(ValueError, match=r"expected those of a norm that cybn takes, got \('layer"):
        torch.ops.cybn.norm(torch.randn(0, 4), *[None] * 5, *settings)


def test_running_statistics_that_share_memory():
    x = torch.randn(6, 4)
    for running in (
        [torch.ones(4)] * 2,
        torch.ones(8).as_strided((2, 4), (1, 1)),
        (x[0], torch.ones(4)),
    ):
        before = [each.clone() for each in (x, *running)]
        with pytest.raises(ValueError, match="running_mean, running_var: expected tensors"):
            cybn.torch.batch_norm(x, *running, training=True)
        assert all(map(torch.equal, before, (x, *running)))
        cybn.torch.batch_norm(x, *running)
