"""Batch norms that compute the addition and the activation behind them, too."""

import inspect
import operator
import warnings
from types import MethodType

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._activations import activation_of_call, activation_of_module

# torch.fx sees `a += b` as `a + b`.
_ADDITIONS = (operator.add, torch.add, "add", "add_")
# What asks for the type of an input gets another answer while fx looks on.
_QUESTIONS = {"isinstance", "hasattr", "getattr", "type", "callable", "is_tensor"}
_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks",),
)


def fuse_norms(model, norms):
    """Fuse batch norms of the classes `norms`, module by module; warn where it cannot be seen."""
    refused = {}
    for name, module in model.named_modules():
        if not any(_ends_with_norm(child, norms) for child in module.children()):
            continue
        try:
            forward = _fused_forward(module, norms)
        except _CannotSee as error:
            refused[name or type(module).__name__] = str(error)
            continue
        if forward is not None:
            module.forward = MethodType(forward, module)
    if refused:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        warnings.warn(f"convert: not fused: {reasons}", stacklevel=3)


def separate_norms(model):
    """Undo `fuse_norms`."""
    for module in model.modules():
        if hasattr(module.__dict__.get("forward"), "_fused_by_cybn"):
            del module.forward


class _CannotSee(Exception):
    """What a module does cannot be followed."""


class _Tracer(fx.Tracer):
    """Follow a module, and into chains that end with a batch norm, but into no other module."""

    def __init__(self, root, norms):
        super().__init__()
        self._followed, self._norms = root, norms

    def is_leaf_module(self, module, name):
        return module is not self._followed and not _is_open_chain(module, self._norms)


def _ends_with_norm(module, norms):
    return isinstance(module, norms) or _is_open_chain(module, norms)


def _is_open_chain(module, norms):
    """Whether a module is a plain chain, in which nobody looks on, that ends with a norm."""
    return (
        isinstance(module, nn.Sequential)
        and type(module).forward is nn.Sequential.forward
        and not _has_hooks(module)
        and len(module) > 0
        and _ends_with_norm(module[-1], norms)
    )


def _has_hooks(module):
    return any(getattr(module, each, None) for each in _HOOKS)


def _fused_forward(module, norms):
    """Return a `forward` for a module's instance, or None if there is nothing to fuse."""
    graph = _trace(module, norms)
    modules = dict(module.named_modules())
    order = {node: place for place, node in enumerate(graph.nodes)}
    changes = [
        _fuse_behind(node, modules, order)
        for node in list(graph.nodes)
        if node.op == "call_module"
        and isinstance(modules[node.target], norms)
        and not _has_hooks(modules[node.target])
    ]
    if not any(changes):
        return None
    graph.lint()
    code = fx.GraphModule(module, graph).forward.__func__
    code._fused_by_cybn = True
    return code


def _trace(module, norms):
    """Return the graph of a module, the same in training and inference."""
    function = type(module).forward
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if any(each.default is not each.empty or each.kind > 1 for each in parameters):
        raise _CannotSee("forward has optional parameters")
    names = set(function.__code__.co_names)
    if names & _QUESTIONS:
        raise _CannotSee(f"forward asks for types ({', '.join(sorted(names & _QUESTIONS))})")
    training = module.training
    graphs = []
    for mode in (not training, training):
        module.training = mode
        try:
            graphs.append(_Tracer(module, norms).trace(module))
        except Exception as error:
            raise _CannotSee(f"torch.fx: {str(error).splitlines()[0]}") from error
        finally:
            module.training = training
    codes = [graph.python_code("self").src for graph in graphs]
    if codes[0] != codes[1]:
        raise _CannotSee("training and inference differ in more than their norms")
    return graphs[1]


def _fuse_behind(norm, modules, order):
    """Fuse what is behind a call of a batch norm; return whether there is any of it."""
    chain, residual = [norm], None
    following = _only_user(norm)
    if following is not None and following.target in _ADDITIONS:
        residual = _residual(following, norm, modules, order)
        if residual is None:
            return False
        chain.append(following)
        following = _only_user(following)
    activation = None if following is None else _activation(following, chain[-1], modules)
    if activation is not None:
        chain.append(following)
    if len(chain) == 1:
        return False
    extras = {"residual": residual, "activation": activation}
    norm.kwargs = {name: value for name, value in extras.items() if value is not None}
    chain[-1].replace_all_uses_with(norm)
    for node in reversed(chain[1:]):
        norm.graph.erase_node(node)
    return True


def _only_user(node):
    return next(iter(node.users)) if len(node.users) == 1 else None


def _residual(addition, norm, modules, order):
    """Return what is added to a norm, if it is there before the norm, and stays as it is."""
    summands = addition.args
    if addition.kwargs or len(summands) != 2 or not all(isinstance(s, fx.Node) for s in summands):
        return None
    first, second = summands
    residual = second if first is norm else first
    if residual is norm or order[residual] > order[norm]:
        return None
    # What is written to must be nobody else's: a norm's own result.
    if addition.target == "add_" and not (
        isinstance(modules.get(first.target), _BatchNorm) and _only_user(first) is not None
    ):
        return None
    between = (user for user in residual.users if order[norm] < order[user] < order[addition])
    return None if any(between) else residual


def _activation(node, of, modules):
    """Return the activation that a node applies to `of`, or None."""
    if not node.args or node.args[0] is not of:
        return None
    if node.op == "call_module":
        module = modules[node.target]
        return None if _has_hooks(module) else activation_of_module(module)
    if node.op in ("call_function", "call_method"):
        return activation_of_call(node.target, node.args[1:], node.kwargs)
    return None
