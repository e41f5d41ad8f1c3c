"""What each process of a group checks about cybn.torch.SyncBatchNorm: see test_torch_sync.

Every process draws the same whole batch, takes its own part, and compares with PyTorch's batch norm
of the whole batch, in float64.
"""

import copy
import functools
import itertools
import sys
import warnings

from torch_peer import channels_last

import pytest
import torch
from sync_ranks import join, report
from torch import distributed, nn
from torch.nn import functional as F
from torch.testing import assert_close

import cybn.torch
from cybn.torch import SyncBatchNorm

RANK, SIZE = join()
PARTS = (7, 1, 0, 24)[:SIZE]  # samples of each rank
ROWS = slice(sum(PARTS[:RANK]), sum(PARTS[: RANK + 1]))
CHECKS = {}
CHANNELS = 5
HALF_ULP = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def check(*options):
    """Make a check of a function, for each of its options."""

    def decorate(function):
        name = function.__name__
        for given in options:
            label = ",".join(map(str, given)).replace("torch.", "")
            CHECKS[f"{name}[{label}]"] = functools.partial(function, *given)
        if not options:
            CHECKS[name] = function
        return function

    return decorate


def draw(*shape, dtype=torch.float64, seed=0):
    """Return values that all processes agree on, in a dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def shape_of(layout):
    return (sum(PARTS), CHANNELS, *{"NC": (), "NCL": (6,), "NCDHW": (2, 3, 2)}.get(layout, (3, 4)))


def gathered(tensor):
    """Return a tensor of all processes, one below the other."""
    result = [torch.empty_like(tensor) for _ in range(SIZE)]
    distributed.all_gather(result, tensor.contiguous())
    return torch.stack(result)


def summed(tensor):
    total = tensor.detach().double().clone()
    distributed.all_reduce(total)
    return total


def assert_near(ours, exact, what):
    """Half an ulp and 1e-9 from the exact result; of float64, 1e-13."""
    ours, dtype = ours.detach(), ours.dtype
    if dtype is torch.float64:
        assert_close(ours, exact, rtol=1e-13, atol=1e-13, msg=lambda text: f"{what}: {text}")
        return
    bound = HALF_ULP[dtype] * exact.abs() + (1e-9 if dtype is torch.float32 else 1e-7)
    excess = ((ours.double() - exact).abs() - bound).max() if ours.numel() else -1
    assert excess <= 0, f"{what}: {excess} beyond half an ulp"


def parameters(dtype):
    weight, bias = 1 + 0.3 * draw(CHANNELS, seed=1), 0.2 * draw(CHANNELS, seed=2)
    return weight.to(dtype), bias.to(dtype)


def layer(dtype=torch.float64, kind=SyncBatchNorm, **options):
    module = kind(CHANNELS, dtype=dtype, **options)
    if module.affine:
        with torch.no_grad():
            for own, value in zip(module.parameters(), parameters(dtype), strict=True):
                own.copy_(value)
    return module


class Calls:
    """Count what is exchanged."""

    def __enter__(self):
        self.original, self.count = distributed.all_gather_single, 0

        def counted(*given, **options):
            self.count += 1
            return self.original(*given, **options)

        distributed.all_gather_single = counted
        return self

    def __exit__(self, *_):
        distributed.all_gather_single = self.original


ACTIVATIONS = {None: None, "relu": F.relu, "silu": F.silu}
DTYPES = torch.float32, torch.float64, torch.bfloat16, torch.float16
LAYOUTS = "NC", "NCL", "NCHW", "channels last", "NCDHW"


def one_process(x, dy, residual=None, activation=None, affine=None):
    """Return y, the gradients and running statistics of the whole batch, by PyTorch, in float64."""
    x, dy = x.double().clone().contiguous().requires_grad_(), dy.double().contiguous()
    affine = parameters(torch.float64) if affine is None else affine
    weight, bias = (each.detach().double().requires_grad_() for each in affine)
    running = torch.zeros(CHANNELS, dtype=x.dtype), torch.ones(CHANNELS, dtype=x.dtype)
    y = F.batch_norm(x, *running, weight, bias, True)
    if residual is not None:
        residual = residual.double().clone().requires_grad_()
        y = y + residual
    y = y if activation is None else ACTIVATIONS[activation](y)
    y.backward(dy)
    others = [] if residual is None else [residual.grad]
    return [y.detach(), x.grad, *others], [weight.grad, bias.grad], running


@check(*itertools.product(LAYOUTS, DTYPES))
def values(layout, dtype):
    x, dy = (draw(*shape_of(layout), dtype=dtype, seed=seed) for seed in (3, 4))
    place = channels_last if layout == "channels last" else torch.clone
    module = layer(torch.float64 if dtype is torch.float64 else torch.float32)
    expected, sums, running = one_process(x, dy, affine=module.parameters())
    own = place(x[ROWS]).requires_grad_()
    y = module(own)
    y.backward(place(dy[ROWS]))
    assert y.dtype is own.grad.dtype is dtype
    assert y.stride() == own.stride() or not y.numel()
    assert_near(y, expected[0][ROWS], "y")
    assert_near(own.grad, expected[1][ROWS], "dx")
    bound = 1e-12 if dtype is torch.float64 else 1e-5  # of sums of what each process has rounded
    for parameter, total in zip(module.parameters(), sums, strict=True):
        assert_close(summed(parameter.grad), total, rtol=bound, atol=bound)
    for ours, theirs in zip((module.running_mean, module.running_var), running, strict=True):
        assert_near(ours, theirs, "running statistics")
        assert (gathered(ours) == ours).all()


@check(*itertools.product((False, True), ACTIVATIONS))
def activations(residual, activation):
    x, dy, added = (draw(*shape_of("NCHW"), seed=seed) for seed in (3, 4, 5))
    extra = {"residual": added} if residual else {}
    expected, _, _ = one_process(x, dy, activation=activation, **extra)
    module = layer(kind=cybn.torch.SyncBatchNormAct, activation=activation)
    own, mine = x[ROWS].clone().requires_grad_(), added[ROWS].clone().requires_grad_()
    y = module(own, mine) if residual else module(own)
    y.backward(dy[ROWS])
    results = [y, own.grad, mine.grad] if residual else [y, own.grad]
    for name, ours, theirs in zip(("y", "dx", "dresidual"), results, expected, strict=False):
        assert_near(ours, theirs[ROWS], name)


@check()
def running_statistics_to_1e13():
    x = draw(*shape_of("NCHW")) * 3 + 1
    module = layer()
    module(x[ROWS])
    _, _, running = one_process(x, x)
    assert_close(module.running_mean, running[0], rtol=1e-13, atol=1e-13)
    assert_close(module.running_var, running[1], rtol=1e-13, atol=1e-13)


@check()
def four_ways():
    """One process plain, one with a group of its own, and many with a group: many plain differ."""
    x = draw(*shape_of("NCHW"))
    alone = distributed.new_group([RANK], use_local_synchronization=True)
    plain, group_of_one = layer(kind=cybn.torch.BatchNorm2d), layer(process_group=alone)
    with Calls() as calls:
        whole = plain(x)
        assert torch.equal(group_of_one(x), whole)
    assert calls.count == 0
    assert_close(layer()(x[ROWS]), whole[ROWS], rtol=1e-13, atol=1e-13)
    if PARTS[RANK]:
        many = layer(kind=cybn.torch.BatchNorm2d)(x[ROWS])
        assert (many - whole[ROWS]).abs().max() > 1e-2


@check()
def same_bits_from_run_to_run():
    x, dy = (draw(*shape_of("NCHW"), dtype=torch.float32, seed=seed) for seed in (3, 4))
    runs = []
    for _ in range(2):
        module, own = layer(torch.float32), x[ROWS].clone().requires_grad_()
        y = module(own)
        y.backward(dy[ROWS])
        runs.append([y.detach(), own.grad, module.running_var, module.weight.grad])
    assert all(map(torch.equal, *runs))


@check(
    ({"momentum": None},),
    ({"track_running_stats": False},),
    ({"affine": False},),
    ({"bias": False},),
)
def options(given):
    module = layer(**given) if "bias" not in given else SyncBatchNorm(CHANNELS, **given)
    module = module.double()
    peer = nn.BatchNorm2d(CHANNELS, **given).double()
    peer.load_state_dict(module.state_dict())
    batches = [draw(*shape_of("NCHW"), seed=seed) for seed in range(3)]
    for x in batches:
        assert_close(module(x[ROWS]), peer(x)[ROWS], rtol=1e-11, atol=1e-11)
    assert_close(module.state_dict(), peer.state_dict(), rtol=1e-11, atol=1e-11)
    assert_close(module.eval()(batches[0]), peer.eval()(batches[0]), rtol=1e-11, atol=1e-11)


@check()
def one_exchange_a_direction():
    x = draw(*shape_of("NCHW"))[ROWS].clone()
    module = layer()
    with Calls() as calls:
        y = module(x.requires_grad_())
        assert calls.count == 1
        y.sum().backward()
        assert calls.count == 2
        module(x.detach()).sum().backward()  # no gradient of x: only the sums of this process
        assert calls.count == 3
        with torch.no_grad():
            module(x)
        assert calls.count == 4
        module.eval()(x).sum().backward()
        assert calls.count == 4


@check()
def inference_on_one_process():
    for options in ({}, {"track_running_stats": False}):
        module = layer(**options)
        module(draw(4, CHANNELS))
        if RANK == 0:
            module.eval()(draw(4, CHANNELS).requires_grad_()).sum().backward()


@check((True,), (False,))
def nobody_has_samples(needs_gradient):
    module = layer()
    before = copy.deepcopy(module.state_dict())
    x = torch.zeros(0, CHANNELS, 3, 2, dtype=torch.float64, requires_grad=needs_gradient)
    y = module(x)
    y.sum().backward()
    assert y.shape == x.shape
    assert not any(each.grad.any() for each in module.parameters())
    before["num_batches_tracked"] += 1
    assert_close(module.state_dict(), before, rtol=0, atol=0)


@check((True,), (False,))
def one_rank_has_no_samples(needs_gradient):
    """PyTorch's test_sync_batch_norm_empty_input."""
    module = layer()
    x = draw(0 if RANK == 0 else 2, CHANNELS, 11, 13).requires_grad_(needs_gradient)
    y = module(x)
    y.sum().backward()
    for each in (y, module.weight.grad, module.running_mean, *([x.grad] if needs_gradient else [])):
        assert not each.isnan().any()


@check()
def one_value_in_total():
    x = draw(1 if RANK == 0 else 0, CHANNELS)
    with pytest.raises(ValueError, match=r"more than 1 value per channel.* over all members"):
        layer()(x)


@check(("channels",), ("dtype",), ("eps",))
def members_who_differ(what):
    differs = RANK == SIZE - 1
    channels, dtype, eps = CHANNELS, torch.float64, 1e-5
    if differs:
        channels = 4 if what == "channels" else channels
        dtype = torch.float32 if what == "dtype" else dtype
        eps = 1e-3 if what == "eps" else eps
    module = SyncBatchNorm(channels, eps, dtype=dtype)
    with pytest.raises(ValueError, match=f"the same {what} on all members"):
        module(draw(3, channels, dtype=dtype))


WRONG = {  # what the first member gives, and what it is told
    "channels": ((draw(3, CHANNELS + 1),), "gamma: expected shape"),
    "dimensions": ((draw(CHANNELS),), "expected at least 2D"),
    "no channels": ((draw(3, 0),), "should be non-zero"),
    "dtype": ((torch.ones(3, CHANNELS, dtype=torch.int64),), "expected tensors of floating point"),
    "residual": ((draw(3, CHANNELS), draw(3)), ""),
    "activation": ((draw(3, CHANNELS), None, "gelu"), "activation: expected None"),
}


@check(*((what,) for what in WRONG))
def an_error_on_one_rank_is_one_on_all(what):
    module, (wrong, text) = layer(), WRONG[what]
    given = (draw(3, CHANNELS),) if RANK else wrong
    expected = f"got an error on member 0: .*{text}" if RANK else text
    with pytest.raises((ValueError, TypeError, IndexError), match=expected):
        module(*given)
    assert not module.running_mean.any()
    assert_close(layer()(draw(3, CHANNELS)).isfinite().all(), torch.tensor(True))  # and goes on


@check()
def process_groups():
    """Of two groups, each has statistics of its own; who is in none, computes alone."""
    groups = [distributed.new_group([0]), distributed.new_group(list(range(1, SIZE)))]
    mine = groups[min(RANK, 1)]
    x = draw(SIZE, 6, CHANNELS)
    others = x[:1] if RANK == 0 else x[1:]
    whole = layer(kind=cybn.torch.BatchNorm1d)(others.reshape(-1, CHANNELS)).view(others.shape)
    assert_close(
        layer(process_group=mine)(x[RANK]), whole[max(RANK - 1, 0)], rtol=1e-12, atol=1e-12
    )
    model = nn.Sequential(nn.Sequential(nn.BatchNorm1d(CHANNELS)))
    assert SyncBatchNorm.convert_sync_batchnorm(model, mine)[0][0].process_group is mine


@check(("linear",), ("squared",))
def second_derivatives_are_refused(loss):
    x = draw(3, CHANNELS).requires_grad_()
    y = layer(affine=False)(x)
    total = (y.pow(2) if loss == "squared" else y).sum()
    (dx,) = torch.autograd.grad(total, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        dx.sum().backward()


@check()
def backward_twice_and_changed_inputs():
    module, x = layer(), draw(4, CHANNELS).requires_grad_()
    y = module(x)
    firsts = [torch.autograd.grad(y.pow(2).sum(), x, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(*firsts)
    y = module(own := x.detach().clone().requires_grad_())
    with torch.no_grad():
        own.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    version = module.running_mean._version
    module(x).relu_()  # a result is no view
    assert module.running_mean._version > version
    with torch.inference_mode():
        module(draw(4, CHANNELS))


@check()
def checkpoints():
    module, x = layer(), draw(4, CHANNELS).requires_grad_()
    expected = torch.autograd.grad(module(x).pow(2).sum(), x)[0]
    y = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(y.pow(2).sum(), x)[0], expected)


@check()
def autocast():
    model = nn.Sequential(nn.Linear(3, CHANNELS), SyncBatchNorm(CHANNELS))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(draw(4, 3, dtype=torch.float32))
    assert y.dtype is torch.bfloat16
    y.sum().backward()
    assert model[1].weight.grad.dtype is torch.float32


@check()
def compiled():
    x = draw(4, CHANNELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the compiler says of itself
        module, peer = layer(), layer()
        results = []
        for each in (torch.compile(module, backend="aot_eager"), peer):
            own = x.clone().requires_grad_()
            y = each(own)
            y.pow(2).sum().backward()
            results.append([y.detach(), own.grad])
        assert all(map(torch.equal, *results))
        assert torch.equal(module.running_var, peer.running_var)
        whole = torch.compile(layer(), backend="aot_eager", fullgraph=True)
        with pytest.raises(torch._dynamo.exc.Unsupported, match="_normalize_in"):
            whole(x)


@check()
def transforms_are_refused():
    module, x = layer(), draw(3, CHANNELS)
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda x: module(x).sum())(x)
    with torch.autograd.forward_ad.dual_level(), pytest.raises((RuntimeError, NotImplementedError)):
        module(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
    assert module.to("meta")(x.to("meta")).is_meta


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5), nn.ReLU(True)

    def forward(self, x):
        out = self.bn(self.conv(x))
        out += x
        return self.relu(out)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU6(inplace=True), Block()),
        *(nn.Flatten(), nn.Linear(45, 4)),
    ).double()


def steps(model, x, labels, total):
    """Return the losses of three training steps over all processes, and the parameters."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels, reduction="sum") / total
        # DDP averages the gradients of the processes, whose losses are parts of a sum.
        (loss * (SIZE if isinstance(model, nn.parallel.DistributedDataParallel) else 1)).backward()
        optimizer.step()
        losses.append(loss.detach())
    model = getattr(model, "module", model)
    return torch.stack(losses), [each.detach() for each in (*model.parameters(), *model.buffers())]


WAYS = {
    "converted": lambda model: cybn.torch.convert(model),
    "fused": lambda model: cybn.torch.convert(model, fuse=True),
}


@check(*itertools.product(WAYS, (True, False)))
def networks_under_ddp(way, broadcast_buffers):
    """Data-parallel and synchronized is as one process with the whole batch."""
    x, labels = draw(4 * SIZE, 3, 5, 5), torch.arange(4 * SIZE) % 4
    cut = slice(0, 3) if RANK == 0 else slice(3 + (RANK - 1) * 4, 3 + RANK * 4)
    cut = slice(cut.start, 4 * SIZE) if RANK == SIZE - 1 else cut  # unequal parts
    expected, expected_state = steps(network(), x, labels, len(x))
    model = SyncBatchNorm.convert_sync_batchnorm(WAYS[way](network()))
    assert type(model[1]) is SyncBatchNorm
    model = nn.parallel.DistributedDataParallel(model, broadcast_buffers=broadcast_buffers)
    losses, state = steps(model, x[cut], labels[cut], len(x))
    assert_close(summed(losses), expected, rtol=1e-9, atol=1e-9)
    assert_close(state, expected_state, rtol=1e-9, atol=1e-9)
    for each in state:
        assert (gathered(each) == each).all()


@check(*((way,) for way in WAYS))
def networks_that_are_not_synchronized(way):
    """DDP with statistics of each process, as with PyTorch's own batch norms."""
    x, labels = draw(4, 3, 5, 5, seed=RANK), torch.arange(4)
    results = []
    for change in (lambda model: model, WAYS[way]):
        model = nn.parallel.DistributedDataParallel(change(network()))
        results.append(steps(model, x, labels, 4))
    assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)


@check()
def pytorchs_conversion_of_a_fused_model():
    """`convert` afterwards makes PyTorch's SyncBatchNorm right, and keeps what was fused."""
    x = draw(2, 3, 5, 5, seed=RANK)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(cybn.torch.convert(network(), fuse=True))
    with pytest.raises(TypeError, match="activation"):
        model(x)
    with pytest.raises(ValueError, match="SyncBatchNorm layers only work with GPU"):
        nn.parallel.DistributedDataParallel(model)
    peer = SyncBatchNorm.convert_sync_batchnorm(cybn.torch.convert(network()))
    assert_close(cybn.torch.convert(model)(x), peer(x), rtol=1e-9, atol=1e-9)


if __name__ == "__main__":
    report({name: each for name, each in CHECKS.items() if name.startswith((*sys.argv[1:],))})
