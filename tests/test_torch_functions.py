"""cybn.torch's functions: values, gradients, memory, and what is handed on to PyTorch."""

import copy

from torch_peer import FUNCTIONS, channels_last, leaf, torch

import numpy as np
import pytest
from levels import run_python
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db

import cybn
import cybn.torch

OPERATORS = {op.name.rpartition(".")[2]: op for op in op_db if not op.variant_test_name}
TOLERANCES = {  # of single values divided by sqrt(eps), too
    4: {"rtol": 1e-5, "atol": 2e-5},
    8: {"rtol": 1e-11, "atol": 1e-11},
}
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def run(function, sample, dtype, dy=None):
    """Return y, then the gradients and the running statistics that there are, in float64."""
    tensors = [leaf(each, dtype) for each in (sample.input, *sample.args)]
    options = {name: leaf(each, dtype) for name, each in sample.kwargs.items()}
    y = function(*tensors, **options)
    y.backward(dy.to(dtype))
    given = [each for each in (*tensors, *options.values()) if isinstance(each, torch.Tensor)]
    return [y.detach().double()] + [
        (each.grad if each.requires_grad else each).double() for each in given
    ]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_pytorchs_own_samples(name, dtype):
    """The reference is PyTorch in float64; PyTorch's own tolerances for its samples are wider.

    Results of 16 bit are within half an ulp, or they are PyTorch's own.
    """
    op, count = OPERATORS[name].op, 0
    for sample in OPERATORS[name].sample_inputs("cpu", dtype, requires_grad=True):
        if name == "rms_norm" and sample.kwargs.get("eps") is None:
            sample.kwargs["eps"] = torch.finfo(dtype).eps  # its default, which is the dtype's
        dy = torch.randn_like(op(sample.input, *sample.args, **sample.kwargs))
        ours, theirs, exact = (
            run(*each, dy)
            for each in (
                (getattr(cybn.torch, name), sample, dtype),
                (op, sample, dtype),
                (op, sample, torch.float64),
            )
        )
        for each, peer, expected in zip(ours, theirs, exact, strict=True):
            if dtype.itemsize == 2:
                info = torch.finfo(dtype)
                half = info.eps / 2 * expected.abs().clamp(min=info.smallest_normal) + 1e-6
                assert (((each - expected).abs() <= half) | (each == peer)).all()
            else:
                assert_close(each, expected, **TOLERANCES[dtype.itemsize])
        count += 1
    assert count > 3


@pytest.mark.parametrize("name", ["group_norm", "rms_norm"])
def test_pytorchs_own_wrong_samples(name):
    for wrong in OPERATORS[name].error_inputs("cpu"):
        sample = wrong.sample_input
        with pytest.raises(wrong.error_type, match=wrong.error_regex):
            getattr(cybn.torch, name)(sample.input, *sample.args, **sample.kwargs)


SHAPES = [
    (6, 4),
    (2, 4, 5),
    (2, 4, 3, 5),
    (2, 4, 2, 3, 2),
    (2, 1, 3, 5),
    (2, 4, 1, 1),
    (1, 4, 3, 5),
]


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_memory_format(shape, last):
    x = torch.randn(shape, requires_grad=True)
    if last:
        x = channels_last(x)
    y = cybn.torch.batch_norm(x, None, None, training=True)
    expected, _ = cybn.forward(x.detach().numpy())
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    assert y.stride() == x.stride()
    assert not y._is_view()
    y.relu_()  # no complaint
    y.sum().backward()
    assert x.grad.stride() == x.stride()


@pytest.mark.parametrize("n", range(3))
def test_any_layout_has_the_same_bits(n):
    base = torch.randn(6, 8, 10, 4)
    x = (base[::2, ::2], base.permute(3, 1, 0, 2)[:, 1:5], base[:1, :, :1].expand(3, 8, 5, 4))[n]
    y = cybn.torch.batch_norm(x, None, None, training=True)
    assert torch.equal(y, cybn.torch.batch_norm(x.contiguous(), None, None, training=True))


def test_gradients_in_any_layout():
    x = torch.randn(2, 4, 3, 5, requires_grad=True)
    dy = torch.randn(2, 4, 3, 5)
    gradients = [
        torch.autograd.grad(cybn.torch.group_norm(x, 2), x, each)[0]
        for each in (dy, channels_last(dy), dy.flip(0).flip(0), torch.stack([dy, dy])[1])
    ]
    assert all(torch.equal(gradients[0], each) for each in gradients[1:])
    (expanded,) = torch.autograd.grad(cybn.torch.group_norm(x, 2).sum(), x)
    assert expanded.abs().max() < 1e-5


def test_nothing_is_copied():
    x = torch.randn(2, 4, 3, 5)
    for each in (x, channels_last(x)):
        y = cybn.torch.batch_norm(each, torch.zeros(4), torch.ones(4))
        assert y.stride() == each.stride()
    large = torch.randn(8, 64, 64, 64)  # 8 MiB
    first = cybn.torch.batch_norm(large, None, None, training=True)
    address = first.data_ptr()
    del first
    assert cybn.torch.batch_norm(large, None, None, training=True).data_ptr() == address


def test_running_statistics():
    x = torch.randn(16, 4)
    ours, theirs = (torch.zeros(4), torch.ones(4)), (torch.zeros(4), torch.ones(4))
    before = ours[0]._version
    cybn.torch.batch_norm(x, *ours, training=True, momentum=0.3)
    F.batch_norm(x, *theirs, training=True, momentum=0.3)
    assert_close(ours, theirs)
    assert ours[0]._version > before
    assert ours[1]._version > before
    version = ours[0]._version
    cybn.torch.batch_norm(x, *ours)
    assert ours[0]._version == version


def test_pytorch_notices_that_running_statistics_changed():
    x, running = torch.randn(8, 4, requires_grad=True), (torch.zeros(4), torch.ones(4))
    y = F.batch_norm(x, *running)
    cybn.torch.batch_norm(x, *running, training=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_changed_input_raises_and_changed_running_statistics_do_not_matter():
    x, running = torch.randn(8, 4, requires_grad=True), (torch.zeros(4), torch.ones(4))
    held = x * 1
    y = cybn.torch.batch_norm(held, *running)
    held.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = cybn.torch.batch_norm(x, *running)
    running[1].mul_(4)
    y.sum().backward()
    assert_close(x.grad, torch.full_like(x, 1 / (1 + 1e-5) ** 0.5))


def test_only_what_is_needed():
    x, w = torch.randn(8, 4), torch.ones(4, requires_grad=True)
    assert not cybn.torch.batch_norm(x, None, None, w.detach(), None, True).requires_grad
    with torch.no_grad():
        assert not cybn.torch.batch_norm(x, None, None, w, None, True).requires_grad
    y = cybn.torch.batch_norm(x, None, None, w, torch.zeros(4), True)
    y.sum().backward()
    assert w.grad is not None
    with torch.inference_mode():
        running = torch.zeros(4), torch.ones(4)
        y = cybn.torch.batch_norm(x, *running, w, None, True)
        assert y.is_inference()
        assert running[0].abs().min() > 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant):
    from torch.utils.checkpoint import checkpoint

    model = cybn.torch.convert(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)))
    x, gradients = torch.randn(8, 4, requires_grad=True), []
    for y in (model(x), checkpoint(model, x, use_reentrant=reentrant)):
        y.pow(2).sum().backward()
        gradients.append(x.grad)
        x.grad = None
    assert torch.equal(*gradients)


def test_saved_tensors_hooks_hold_the_input():
    """What is offloaded is not kept by the norm itself."""
    x, packed = torch.randn(8, 4, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: packed.append(t) or len(packed) - 1, lambda i: packed[i] * 2
    ):
        y = cybn.torch.layer_norm(x, (4,))
    y.pow(2).sum().backward()
    assert len(packed) >= 1
    assert torch.isfinite(x.grad).all()


def test_what_is_handed_on():
    """Results of PyTorch's own function, to the last bit, or its own error."""
    x = torch.randn(4, 6, 5)
    for given in (
        (x.to("meta"), None, None, None, None, True),
        (x.bfloat16(), None, None, torch.ones(6), torch.zeros(6), True),
        (x[:0], torch.zeros(6), torch.ones(6), None, None, True),
        (x, torch.zeros(6), torch.ones(6), None, None, False, 0.1, 0.0),
        (x[..., None].to_mkldnn(), *[torch.ones(6) for _ in range(4)]),
    ):
        ours, theirs = cybn.torch.batch_norm(*given), F.batch_norm(*given)
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if not ours.is_meta:
            assert torch.equal(ours.to_dense(), theirs.to_dense())
    for wrong in (
        (x[:1, :, 0], None, None, None, None, True),
        (x, None, None, None, None, False),
        (x, torch.zeros(5), torch.ones(5)),
        (x, torch.zeros(6), None, None, None, True),
        (x, None, None, torch.ones(6, dtype=torch.float64), None, True),
        (x, None, None, None, None, True, 0.1, -1.0),
        (x.long(), None, None, None, None, True),
    ):
        with pytest.raises((RuntimeError, ValueError)) as theirs:
            F.batch_norm(*wrong)
        with pytest.raises(theirs.type) as ours:
            cybn.torch.batch_norm(*wrong)
        assert str(ours.value) == str(theirs.value)


def test_fake_tensors_subclasses_and_modes():
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    with FakeTensorMode() as mode:
        fake = cybn.torch.layer_norm(mode.from_tensor(torch.randn(3, 4)), (4,))
    assert fake.shape == (3, 4)
    x = torch.randn(3, 4, requires_grad=True)
    with FlopCounterMode(display=False):
        y = cybn.torch.layer_norm(x, (4,))
        y.pow(2).sum().backward()
    assert torch.equal(y, cybn.torch.layer_norm(x, (4,)))

    class Marked(torch.Tensor):
        pass

    assert type(cybn.torch.layer_norm(x.detach().as_subclass(Marked), (4,))) is Marked


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what functorch imports
def test_functorch_and_forward_mode():
    x = torch.randn(5, 4)
    norm = lambda x: cybn.torch.layer_norm(x, (4,)).pow(3).sum()  # noqa: E731
    theirs = lambda x: F.layer_norm(x, (4,)).pow(3).sum()  # noqa: E731
    assert_close(torch.func.grad(norm)(x), torch.func.grad(theirs)(x))
    assert_close(torch.func.hessian(norm)(x), torch.func.hessian(theirs)(x))
    batched = torch.func.vmap(lambda x: cybn.torch.batch_norm(x, None, None, training=True))
    images = torch.randn(2, 3, 4, 5)
    assert_close(batched(images)[1], cybn.torch.batch_norm(images[1], None, None, training=True))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        assert forward_ad.unpack_dual(cybn.torch.layer_norm(dual, (4,))).tangent is not None


def test_autocast():
    x = torch.randn(4, 3, 8, 8)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    ours = cybn.torch.convert(copy.deepcopy(model))
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = ours(x), model(x)
        for name, given in {
            "layer_norm": ((8,),),
            "group_norm": (3,),
            "instance_norm": (),
            "rms_norm": ((8,),),
        }.items():
            for each in (x, x.bfloat16()):
                result = getattr(cybn.torch, name)(each, *given)
                assert result.dtype == getattr(F, name)(each, *given).dtype
    assert y.dtype == expected.dtype == torch.bfloat16
    assert_close(y, expected, atol=0.05, rtol=0.05)
    y.sum().backward()
    assert ours[1].weight.grad.dtype == torch.float32


def test_threads_follow_pytorch():
    code = """
import sys, torch, cybn.torch
x, results = torch.randn(16, 64, 32, 32), []
for threads in (1, 2):
    torch.set_num_threads(threads)
    assert cybn.get_num_threads() == threads
    results.append(cybn.torch.batch_norm(x, None, None, training=True))
assert torch.equal(*results)
"""
    run_python("-c", code, OMP_NUM_THREADS="2")


@pytest.mark.parametrize("other", ["broadcast", "dtype", "meta"])
def test_residuals_that_pytorch_adds(other):
    x = torch.randn(3, 4, 5)
    residual = {"broadcast": x[:, :, :1], "dtype": x.double(), "meta": x.to("meta")}[other]
    if other == "meta":
        x = x.to("meta")
    y = cybn.torch.batch_norm(x, None, None, training=True, residual=residual, activation="relu")
    expected = F.relu(F.batch_norm(x, None, None, training=True) + residual)
    assert y.dtype == expected.dtype
    if other != "meta":
        assert_close(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu", ("relu", 1), 3, ()])
def test_unknown_activation(activation):
    with pytest.raises(ValueError, match="activation: expected None"):
        cybn.torch.batch_norm(torch.ones(3, 2), None, None, training=True, activation=activation)


def test_import_of_cybn_brings_no_torch():
    run_python("-c", "import cybn, sys; assert not {'torch', 'cybn.torch'} & set(sys.modules)")


def test_without_pytorch_the_error_says_what_to_install():
    code = """
import sys
sys.modules["torch"] = None
try:
    import cybn.torch
except ImportError as error:
    print(error)
"""
    assert 'pip install "cybn[torch]"' in run_python("-c", code)
