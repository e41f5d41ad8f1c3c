"""cybn.torch's modules, and what `convert` makes of models."""

import copy
import doctest
import importlib
import io
import pickle
import warnings

from torch_peer import leaf, same, torch

import pytest
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close
from torch.testing._internal.common_modules import module_db

import cybn.torch

NAMES = [name for name in cybn.torch.__all__ if isinstance(getattr(cybn.torch, name), type)]
SAME = [name for name in NAMES if "Act" not in name and "Sync" not in name]
INFOS = {info.name.rpartition(".")[2]: info for info in module_db}


def converted(model, **options):
    return cybn.torch.convert(copy.deepcopy(model), **options)


def result(module, given):
    """Return y, the gradients and the buffers of a module, called twice."""
    given = [leaf(each) for each in given]
    module(*given)
    y = module(*given)
    if y.requires_grad:
        y.pow(2).sum().backward()
    gradients = [each.grad for each in (*given, *module.parameters()) if each.grad is not None]
    return [y.detach(), *gradients, *module.buffers()]


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", SAME)
def test_pytorchs_own_module_samples(name, training):
    info, count = INFOS[name], 0
    ours, theirs = getattr(cybn.torch, name), getattr(nn, name)
    samples = info.module_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
    )
    for sample in samples:
        arguments, options = sample.constructor_input.args, sample.constructor_input.kwargs
        peer = theirs(*arguments, **options, dtype=torch.float64).train(training)
        module = ours(*arguments, **options, dtype=torch.float64).train(training)
        assert repr(module) == repr(peer)
        module.load_state_dict(peer.state_dict())
        given = sample.forward_input.args
        assert_close(result(module, given), result(peer, given), rtol=1e-11, atol=1e-11)
        count += 1
    assert count > 1


@pytest.mark.parametrize("name", NAMES)
def test_modules_are_pytorchs(name):
    module = getattr(cybn.torch, name)
    # DistributedDataParallel refuses nn.SyncBatchNorm on the CPU.
    base = _BatchNorm if "Sync" in name else getattr(nn, name.replace("Act", ""))
    assert issubclass(module, base)
    assert pickle.loads(pickle.dumps(module)) is module


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 2, 2)], ids=str)
def test_errors_are_pytorchs(shape):
    for x in (torch.ones(shape), torch.ones(1, 3, 1, 1), torch.ones(2, 3, 1, 1, 1)):
        with pytest.raises((ValueError, RuntimeError)) as theirs:
            nn.BatchNorm2d(3)(x)
        with pytest.raises(theirs.type) as ours:
            cybn.torch.BatchNorm2d(3)(x)
        assert str(ours.value) == str(theirs.value)


def network():
    shared = nn.BatchNorm2d(4)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), shared, nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1), shared),
        *(nn.Conv2d(4, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4)),
        *(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 5), nn.BatchNorm1d(5)),
    )


def test_convert_changes_nothing_but_classes():
    model = network()
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append("forward"))
    model[7].register_full_backward_hook(lambda *_: calls.append("backward"))
    before = dict(model.named_parameters()), dict(model.named_buffers()), list(model.state_dict())
    expected = repr(model)
    assert cybn.torch.convert(model) is model
    assert type(model[1]) is cybn.torch.BatchNorm2d
    assert model[1] is model[4]
    assert repr(model) == expected
    after = dict(model.named_parameters()), dict(model.named_buffers()), list(model.state_dict())
    for old, new in zip(before[:2], after[:2], strict=True):
        assert list(old) == list(new)
        assert all(old[name] is new[name] for name in old)
    assert before[2] == after[2]
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert calls == ["forward", "forward", "backward"]
    assert not any(type(each).__module__ == "cybn.torch" for each in cybn.torch.revert(model))


def test_convert_computes_the_same():
    model, x = network().double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    assert_close(result(converted(model), [x]), result(model, [x]), rtol=1e-9, atol=1e-9)


def test_filter():
    model = converted(network(), filter_fn=lambda module, name: name != "1")
    assert type(model[1]) is nn.BatchNorm2d
    assert type(model[6]) is cybn.torch.InstanceNorm2d
    model = cybn.torch.convert(nn.BatchNorm1d(3), filter_fn=lambda module, name: name == "")
    assert type(model) is cybn.torch.BatchNorm1d


def test_subclasses_and_lazy_modules_stay():
    class Own(nn.BatchNorm2d):
        pass

    for module in (Own(3), nn.LazyBatchNorm2d()):
        assert type(cybn.torch.convert(module)) is type(module)


@pytest.mark.parametrize("fuse", [False, True])
def test_saved_copied_and_moved(fuse):
    model, x = converted(network(), fuse=fuse), torch.randn(4, 3, 8, 8)
    model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded
    expected = result(model, [x])
    for each in copies:
        assert type(each[1]) is cybn.torch.BatchNorm2d
        assert_close(result(each, [x]), expected, rtol=1e-5, atol=1e-5)
    plain = network()
    plain.load_state_dict(model.state_dict())
    assert_close(plain.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-4)
    assert model.to("meta")(x.to("meta")).is_meta


def test_averaged_and_unusual_batch_norms():
    x = torch.randn(8, 4)
    for options in (
        {"momentum": None},
        {"track_running_stats": False},
        {"affine": False},
        {"bias": False},
    ):
        ours, theirs = cybn.torch.BatchNorm1d(4, **options), nn.BatchNorm1d(4, **options)
        for _ in range(3):
            assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
        assert_close(ours.state_dict(), theirs.state_dict())
        assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)


def test_what_pytorch_does_with_batch_norms():
    model = converted(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    batches = torch.randn(6, 2, 3, 8, 8)
    torch.optim.swa_utils.update_bn(batches, model)
    mean = model[0](batches.flatten(0, 1)).mean((0, 2, 3))
    assert_close(model[1].running_mean, mean, rtol=1e-4, atol=1e-5)
    fused = nn.utils.fuse_conv_bn_eval(model[0].eval(), model[1].eval())
    assert_close(fused(batches[0]), model.eval()(batches[0]), rtol=1e-4, atol=1e-5)
    torch.func.replace_all_batch_norm_modules_(model)
    y = torch.func.functional_call(model, dict(model.named_parameters()), batches[0])
    assert y.shape == (2, 4, 6, 6)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(True)

    def forward(self, x):
        out = self.bn(self.conv(x))
        out += x
        return self.relu(out)


def chain(*modules):
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), *modules)


FUSED = {
    "ReLU": chain(nn.ReLU(inplace=True)),
    "ReLU6": chain(nn.ReLU6(inplace=True)),
    "LeakyReLU": chain(nn.LeakyReLU(0.3)),
    "Hardswish": chain(nn.Hardswish()),
    "SiLU": chain(nn.SiLU(inplace=True), nn.BatchNorm2d(4), nn.ReLU()),
    "residual": Residual(),
}


def calls_of(model):
    """Return what the batch norms of a model are asked to compute besides."""
    asked, handles = [], []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            hook = lambda _, args, kwargs: asked.append(  # noqa: E731
                (kwargs.get("residual") is not None, kwargs.get("activation"))
            )
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    model(torch.randn(2, 4, 3, 3))
    for handle in handles:
        handle.remove()
    return asked


def test_what_is_fused():
    asked = {name: calls_of(converted(model, fuse=True)) for name, model in FUSED.items()}
    assert asked == {
        "ReLU": [(False, "relu")],
        "ReLU6": [(False, "relu6")],
        "LeakyReLU": [(False, ("leaky_relu", 0.3))],
        "Hardswish": [(False, "hardswish")],
        "SiLU": [(False, "silu"), (False, "relu")],
        "residual": [(True, "relu")],
    }


@pytest.mark.parametrize("name", FUSED)
def test_fused_computes_the_same(name):
    model, x = FUSED[name].double(), torch.randn(2, 4, 3, 3, dtype=torch.float64)
    fused = converted(model, fuse=True)
    x.requires_grad_()
    assert_close(result(fused, [x]), result(converted(model), [x]), rtol=1e-9, atol=1e-9)
    assert type(fused) is type(model)
    assert list(fused.state_dict()) == list(model.state_dict())
    assert calls_of(cybn.torch.revert(fused).float())[0] == (False, None)
    FUSED[name].float()


def test_fused_models_survive_copies_and_changes():
    model = converted(FUSED["residual"], fuse=True)
    other = copy.deepcopy(model)
    other.bn.weight.data.fill_(0)
    other.bn.bias.data.fill_(-100)
    x = torch.rand(2, 4, 3, 3)
    assert other(x).max() == 0
    assert model(x).max() > 0
    assert calls_of(pickle.loads(pickle.dumps(model)))[0] == (False, None)


class Unclear(nn.Module):
    def __init__(self, behind):
        super().__init__()
        self.bn, self.relu, self.behind = nn.BatchNorm2d(4), nn.ReLU(), behind

    def forward(self, x):
        return self.behind(self, x)


def used_twice(self, x):
    y = self.bn(x)
    return self.relu(y) + y


def written_before_it_is_added(self, x):
    y = self.bn(x)
    return y + x.mul_(2)


def added_to_the_input(self, x):
    return x.add_(self.bn(x))


def scaled_sum(self, x):
    return self.relu(torch.add(self.bn(x), x, alpha=2))


def added_later(self, x):
    return self.relu(self.bn(x) + x.sin())


def number(self, x):
    return self.bn(x) + 1


@pytest.mark.parametrize(
    "behind",
    [used_twice, written_before_it_is_added, added_to_the_input, scaled_sum, added_later, number],
)
def test_what_is_not_fused(behind):
    model, x = Unclear(behind), torch.randn(2, 4, 3, 3)
    expected = converted(model)(x.clone())
    fused = converted(model, fuse=True)
    assert torch.equal(fused(x.clone()), expected)
    assert calls_of(fused) == [(False, None)]


def test_hooked_modules_are_not_fused():
    model, calls = copy.deepcopy(FUSED["ReLU"]), []
    model[2].register_forward_hook(lambda *_: calls.append("relu"))
    model = cybn.torch.convert(model, fuse=True)
    assert calls_of(model) == [(False, None)]
    assert calls == ["relu"]


def by_type(self, x):
    return self.relu(self.bn(x if isinstance(x, torch.Tensor) else x[0]))


def by_value(self, x):
    return self.relu(self.bn(x)) if x.sum() > 0 else self.bn(x)


def by_mode(self, x):
    return self.relu(self.bn(x)) if self.training else self.bn(x)


class Optional(Unclear):
    def forward(self, x, skip=None):
        y = self.bn(x)
        return self.relu(y if skip is None else y + skip)


class ByType(Unclear):
    forward = by_type


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Unclear(by_value), "torch.fx"),
        (Unclear(by_mode), "training and inference differ"),
        (ByType(None), "asks for types"),
        (Optional(None), "optional parameters"),
    ],
    ids=["value", "mode", "type", "option"],
)
def test_what_cannot_be_seen_is_named(model, reason):
    with pytest.warns(UserWarning, match=f"not fused: part: .*{reason}"):
        cybn.torch.convert(nn.ModuleDict({"part": copy.deepcopy(model)}), fuse=True)


def test_a_model_without_norms_is_no_reason_to_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cybn.torch.convert(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), fuse=True)


def test_sync_batch_norm_never_drops_an_activation_silently():
    """PyTorch's converter replaces batch norms, whatever else they compute."""
    x = torch.randn(2, 4, 3, 3)
    fused = nn.SyncBatchNorm.convert_sync_batchnorm(converted(FUSED["ReLU"], fuse=True))
    with pytest.raises(TypeError, match="activation"):
        fused.eval()(x)
    with pytest.raises(TypeError, match=r"BatchNormAct2d: .* activation"):
        nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(cybn.torch.BatchNormAct2d(4)))
    plain = nn.SyncBatchNorm.convert_sync_batchnorm(converted(chain()))
    assert type(plain[1]) is nn.SyncBatchNorm


def test_batch_norm_act():
    x, residual = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    module = cybn.torch.BatchNormAct2d(4, activation="relu6", eps=1e-3)
    peer = nn.BatchNorm2d(4, eps=1e-3)
    assert list(module.state_dict()) == list(peer.state_dict())
    y = module(x, residual)
    assert_close(y, torch.clamp(peer(x) + residual, 0, 6), rtol=1e-5, atol=1e-5)
    assert same(copy.deepcopy(module).eval()(x), pickle.loads(pickle.dumps(module)).eval()(x))
    assert "activation='relu6'" in repr(module)
    with pytest.raises(ValueError, match="activation: expected"):
        cybn.torch.BatchNormAct1d(4, activation="gelu")


@pytest.mark.parametrize("module", ["", "._functional", "._convert"])
def test_docstrings(module):
    assert doctest.testmod(importlib.import_module(f"cybn.torch{module}")).failed == 0
