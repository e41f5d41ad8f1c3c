"""cybn.torch.SyncBatchNorm: alone, and over two to four processes of a gloo group."""

import copy
import doctest
import pickle
import signal
import subprocess
import sys
from pathlib import Path

from torch_peer import torch

import pytest
from sync_ranks import outcomes, run
from torch import nn

import cybn.torch
from cybn.torch import SyncBatchNorm, SyncBatchNormAct, _sync

EXAMPLE = Path(__file__).parents[1] / "examples" / "ddp_digits.py"


def assert_all_pass(least, program, size, *arguments):
    ended = outcomes(run(program, size, *arguments))
    failed = {name: text for name, text in ended.items() if text}
    assert not failed, "\n".join(f"{name}: {text}" for name, text in failed.items())
    assert len(ended) >= least


@pytest.mark.parametrize("size", [2, 4])
def test_checks(size):
    assert_all_pass(64, "sync_checks.py", size, "")


def test_values_over_three_processes():
    assert_all_pass(20, "sync_checks.py", 3, "values")


def test_pytorchs_own():
    assert_all_pass(11, "sync_pytorch.py", 2)


# Python's exit, or that by gloo's threads, which may abort a process whose peer has gone.
FAILED = {1, -signal.SIGABRT}


@pytest.mark.parametrize(
    ("how", "last_codes", "message"),
    [
        ("wrong shape", FAILED, "got an error on member 1: ValueError: gamma: expected"),
        ("raises elsewhere", FAILED, "RuntimeError: "),
        ("killed", {-signal.SIGKILL}, "RuntimeError: "),
        ("late", {0}, "Timed out"),
    ],
    ids=["wrong shape", "raises elsewhere", "killed", "late"],
)
def test_a_failure_of_one_ends_all_with_a_message(how, last_codes, message):
    first, last = run("sync_failures.py", 2, how)
    assert first.code in FAILED
    assert last.code in last_codes
    assert message in first.errors
    assert float(first.printed) < 30


def test_the_example_has_the_accuracies_of_one_process(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    torchrun = "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
    options = "--epochs=1", "--out", tmp_path
    command = [sys.executable, "-m", *torchrun, EXAMPLE, *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("The accuracies are those of one process when 2 processes") == 1
    assert (tmp_path / "ddp_digits.png").stat().st_size > 10_000


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))


def test_alone_it_is_a_batch_norm():
    x = torch.randn(4, 3, 5, 5)
    ours, theirs = SyncBatchNorm(3), nn.SyncBatchNorm(3)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(x), copy.deepcopy(ours)(x))


@pytest.mark.parametrize("shape", [(3,), (2, 0, 3)])
def test_errors_are_pytorchs(shape):
    with pytest.raises(ValueError, match=r"expected at least 2D|should be non-zero") as theirs:
        nn.SyncBatchNorm(shape[-1])(torch.ones(shape))
    with pytest.raises(ValueError, match=r"expected at least 2D|should be non-zero") as ours:
        SyncBatchNorm(shape[-1])(torch.ones(shape))
    assert str(ours.value) == str(theirs.value)


def test_convert_sync_batchnorm_changes_nothing_but_classes():
    model, calls = network(), []
    model[1].register_forward_hook(lambda *_: calls.append("hook"))
    before = dict(model.named_parameters())
    assert SyncBatchNorm.convert_sync_batchnorm(model, "group") is model
    assert [type(each) for each in model[1::2]] == [SyncBatchNorm] * 2
    assert model[1].process_group == "group"
    assert all(before[name] is each for name, each in model.named_parameters())
    model.eval()(torch.randn(2, 3, 2, 2))
    assert calls == ["hook"]
    module = SyncBatchNorm.convert_sync_batchnorm(cybn.torch.BatchNormAct1d(4, activation="silu"))
    assert type(module) is SyncBatchNormAct
    assert module.activation == "silu"


def test_fused_models_stay_fused():
    x = torch.randn(4, 3, 5, 5)
    model = cybn.torch.convert(network(), fuse=True)
    expected = copy.deepcopy(model)(x)
    SyncBatchNorm.convert_sync_batchnorm(model)
    assert "forward" in vars(model)
    assert torch.equal(model(x), expected)
    later = cybn.torch.convert(SyncBatchNorm.convert_sync_batchnorm(network()), fuse=True)
    assert "forward" in vars(later)


def test_convert_and_revert():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(network(), "group")
    assert type(cybn.torch.convert(model)[1]) is SyncBatchNorm
    assert model[1].process_group == "group"
    assert type(cybn.torch.revert(model)[1]) is nn.SyncBatchNorm


def test_what_is_not_synchronized_is_named():
    class Own(nn.BatchNorm1d):
        pass

    model = nn.Sequential(Own(3), nn.LazyBatchNorm1d(), nn.InstanceNorm1d(3))
    with pytest.warns(UserWarning, match=r"not synchronized: 0 \(Own\), 1 \(LazyBatchNorm1d\)$"):
        SyncBatchNorm.convert_sync_batchnorm(model)


def test_docstrings():
    assert doctest.testmod(_sync).failed == 0
