"""cybn.torch under torch.compile, and its operators."""

import copy

from torch_peer import channels_last, leaf, same, torch

import pytest
from torch import nn

import cybn.torch

# torch.compile's own imports and backends warn.
pytestmark = pytest.mark.filterwarnings("ignore")

CASES = {  # norm, number, training, and what is behind x
    "batch, training": ("batch", 0, True, (4,)),
    "batch, inference": ("batch", 0, False, (4,)),
    "batch, relu": ("batch", 0, True, (4,), "relu"),
    "batch, silu": ("batch", 0, True, (4,), "silu"),
    "instance": ("instance", 0, True, (4,)),
    "group": ("group", 2, True, (4,)),
    "layer": ("layer", 2, True, (5, 6)),
    "rms": ("rms", 1, True, (6,)),
}


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("needed", [False, True], ids=["no gradient", "gradients"])
@pytest.mark.parametrize("case", CASES)
def test_opcheck(case, needed, last):
    norm, number, training, shape, *activation = CASES[case]
    x = torch.randn(3, 4, 5, 6, requires_grad=needed)
    x = channels_last(x) if last else x
    weight, bias = (torch.randn(shape, requires_grad=needed) for _ in range(2))
    if norm == "rms":
        bias = None
    running = (torch.zeros(4), torch.ones(4)) if norm == "batch" else (None, None)
    settings = norm, number, training, 0.1, 1e-5, *(activation or [None]), 0.0
    residual = torch.randn(3, 4, 5, 6, requires_grad=needed) if activation else None
    for parameters in ((weight, bias), (None, None)):
        given = x, *parameters, *running, residual, *settings
        torch.library.opcheck(torch.ops.cybn.norm.default, given)
        y, saved, *_ = torch.ops.cybn.norm(*given)
        dy = torch.randn(3, 4, 5, 6, requires_grad=needed)
        third = y.detach() if activation == ["relu"] else residual
        wanted = [each is not None for each in (x, *parameters, residual)]
        given = dy, x, *parameters, saved, third, *settings, wanted
        torch.library.opcheck(torch.ops.cybn.norm_backward.default, given)


class Block(nn.Module):
    """Every norm, and between them what has the same bits compiled."""

    def __init__(self):
        super().__init__()
        self.bn, self.relu = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.instance, self.group = nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4)
        self.layer, self.rms, self.bn1 = nn.LayerNorm(6), nn.RMSNorm(6), nn.BatchNorm1d(4)

    def forward(self, x):
        x = self.relu(self.bn(x))
        x = self.rms(self.layer(self.group(self.instance(x)))).mul_(2)
        return self.bn1(x[:, :, 1, 2])


def results_of(call, module, x):
    """Return y, all gradients and all buffers."""
    given = leaf(x)
    y = call(given)
    y.backward(torch.linspace(-1, 1, y.numel()).reshape(y.shape))
    gradients = [each.grad.clone() for each in (given, *module.parameters())]
    module.zero_grad()
    return [y, *gradients, *(each.clone() for each in module.buffers())]


@pytest.mark.parametrize(
    ("backend", "fuse"), [("aot_eager", False), ("inductor", False), ("inductor", True)]
)
def test_compiled_has_the_bits_of_eager(backend, fuse):
    """In one graph, for more than one batch size, forward and backward."""
    eager = cybn.torch.convert(Block(), fuse=fuse)
    model = copy.deepcopy(eager)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for training in (True, False):
        eager.train(training)
        model.train(training)
        for batch in (3, 5):
            x = channels_last(torch.randn(batch, 4, 5, 6, requires_grad=True))
            expected, actual = results_of(eager, eager, x), results_of(compiled, model, x)
            assert [torch.equal(*pair) for pair in zip(actual, expected, strict=True)] == (
                [True] * len(expected)
            )


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_dynamic_batch_makes_one_graph(name):
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    given = (None, None, None, None, True) if name == "batch_norm" else ((4,),)
    compiled = torch.compile(
        lambda x: getattr(cybn.torch, name)(x, *given), fullgraph=True, backend=counter
    )
    for batch in (3, 4, 5, 6, 7):
        x = torch.randn(batch, 4)
        torch._dynamo.mark_dynamic(x, 0)
        assert same(compiled(x), getattr(cybn.torch, name)(x, *given))
    assert counter.frame_count == 1


def test_operators_change_none_of_their_arguments():
    running = torch.zeros(4), torch.ones(4)
    x = torch.randn(8, 4)
    _, _, mean, var = torch.ops.cybn.norm(
        x, None, None, *running, None, "batch", 0, True, 0.1, 1e-5, None, 0.0
    )
    assert running[0].eq(0).all()
    assert running[1].eq(1).all()
    cybn.torch.batch_norm(x, *running, training=True)
    assert torch.equal(mean, running[0])
    assert torch.equal(var, running[1])


def test_operators_have_gradients_of_their_own():
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    norm = lambda x: torch.ops.cybn.norm(  # noqa: E731
        x, None, None, None, None, None, "layer", 1, True, 0.0, 1e-5, None, 0.0
    )[0]
    assert torch.autograd.gradcheck(norm, x)
    assert torch.autograd.gradgradcheck(norm, x)


def test_export_and_trace():
    """What is exported runs without cybn: see docs/torch.md."""
    model, x = cybn.torch.convert(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))), torch.ones(2, 4)
    traced = torch.jit.trace(model, x)
    assert "^" not in str(traced.inlined_graph)  # a call of Python
    exported = torch.export.export(model, (x,))
    assert "cybn" not in str(exported.graph)
    assert torch.allclose(exported.module()(x), model(x), atol=1e-5)
