"""from_onnx: ONNX's nodes."""

from collections.abc import Mapping

import numpy as np

from ._batch_norm_layer import BatchNorm
from ._interop import as_values, make_layer
from ._norm_layers import GroupNorm, InstanceNorm, LayerNorm, RMSNorm

FLOAT, INT = 1, 2  # of AttributeProto.AttributeType


def from_onnx(node, initializers):
    """Return a layer that computes what a normalization node of ONNX does.

    Parameters
    ----------
    node : onnx.NodeProto
        ``BatchNormalization``, ``LayerNormalization``, ``RMSNormalization``,
        ``GroupNormalization`` (opset 21 or later, with a scale for each channel) or
        ``InstanceNormalization``.
    initializers : iterable of onnx.TensorProto, or mapping of str to array_like
        Where the node's parameters are found by name, as ``model.graph.initializer``; float32 or
        float64. A parameter that another node computes can be given in a mapping.

    Returns
    -------
    BatchNorm, LayerNorm, RMSNorm, GroupNorm or InstanceNorm
        With copies of the arrays; in training if it is a batch norm with ``training_mode=1``, or
        with the further results that this mode has before opset 14.

    Raises
    ------
    TypeError
        If it is anything else, or has parameters of another dtype.
    ValueError
        If a parameter is missing, or a setting has no counterpart.

    Notes
    -----
    - ONNX's momentum weighs the old value, so it becomes ``1 - momentum``.
    - ONNX averages the biased variance (n), cybn the unbiased one (n - 1). What was trained is
      used as it is; in further training it is the unbiased one of the new batches that is averaged.
    - ONNX stores float32 settings. They are read as the shortest decimals that mean the same
      float32: ``eps=1e-05``, not 9.999999747378752e-06.

    Examples
    --------
    >>> import cybn, numpy as np, onnx
    >>> names = ["scale", "bias", "mean", "var"]
    >>> node = onnx.helper.make_node("BatchNormalization", ["x", *names], ["y"], momentum=0.75)
    >>> bn = cybn.from_onnx(node, {name: np.ones(3, np.float32) for name in names})
    >>> bn.num_features, bn.eps, bn.momentum, bn.training
    (3, 1e-05, 0.25, False)
    """
    kind = getattr(node, "op_type", type(node).__name__)
    if kind not in _KINDS or node.domain not in ("", "ai.onnx"):
        domain = getattr(node, "domain", "")
        got = f"{domain}.{kind}" if domain else kind
        raise TypeError(f"node: expected one of ONNX's {', '.join(_KINDS)}, got {got}")
    names, make = _KINDS[kind]
    by_name = _by_name(initializers)
    arrays = dict.fromkeys(names)
    for name, given in zip(names, node.input[1:], strict=False):
        if given:
            arrays[name] = as_values(_found(by_name, given, name), f"initializers[{given!r}]")
    if missing := [name for name in names if arrays[name] is None and name != "bias"]:
        raise ValueError(f"node.input: expected a name of its {missing[0]}, got {[*node.input]}")
    return make(node, _attributes(node), **arrays)


def _by_name(initializers):
    if isinstance(initializers, Mapping):
        return initializers
    return {tensor.name: tensor for tensor in initializers}


def _found(by_name, given, name):
    """Return a parameter by the name that the node gives it."""
    if given not in by_name:
        raise ValueError(
            f"initializers: expected {given!r}, the node's {name}, got none of that name; "
            "if another node computes it, pass a mapping that has it"
        )
    value = by_name[given]
    if hasattr(value, "raw_data"):  # a TensorProto, so onnx is there
        from onnx.numpy_helper import to_array

        return to_array(value)
    return np.asarray(value)


def _attributes(node):
    """Return floats and ints by their names, floats as the shortest decimals of that float32."""
    values = {}
    for attribute in node.attribute:
        if attribute.type == FLOAT:
            values[attribute.name] = float(str(np.float32(attribute.f)))
        elif attribute.type == INT:
            values[attribute.name] = attribute.i
    return {"epsilon": 1e-5} | values


def _batch_norm(node, attributes, scale, bias, mean, var):
    if attributes.get("spatial", 1) != 1:
        raise ValueError("node.spatial: expected 1, got 0, which has no counterpart")
    return make_layer(
        BatchNorm,
        len(scale),
        gamma=scale,
        beta=bias,
        statistics={"running_mean": mean, "running_var": var},
        training=bool(attributes.get("training_mode", 0)) or len(node.output) > 1,
        eps=attributes["epsilon"],
        momentum=1 - attributes.get("momentum", 0.9),
    )


def _layer_norm(_, attributes, scale, bias):
    lengths, eps = _lengths(attributes, scale), attributes["epsilon"]
    return make_layer(LayerNorm, lengths, gamma=scale, beta=bias, eps=eps)


def _rms_norm(_, attributes, scale):
    return make_layer(RMSNorm, _lengths(attributes, scale), gamma=scale, eps=attributes["epsilon"])


def _group_norm(_, attributes, scale, bias):
    sizes, eps = (attributes["num_groups"], len(scale)), attributes["epsilon"]
    return make_layer(GroupNorm, *sizes, gamma=scale, beta=bias, eps=eps)


def _instance_norm(_, attributes, scale, bias):
    return make_layer(InstanceNorm, len(scale), gamma=scale, beta=bias, eps=attributes["epsilon"])


def _lengths(attributes, scale):
    """Return the lengths of the axes that are normalized over, of which ONNX names the first."""
    axis = attributes.get("axis", -1)
    if axis != -scale.ndim:
        raise ValueError(
            f"node.axis: expected {-scale.ndim}, as the scale has shape {scale.shape}, got {axis}; "
            "if that is the same axis of x, make the layer of cybn with this shape"
        )
    return scale.shape


_AFFINE = "scale", "bias"
_KINDS = {  # each with the names of its inputs after the first
    "BatchNormalization": ((*_AFFINE, "mean", "var"), _batch_norm),
    "LayerNormalization": (_AFFINE, _layer_norm),
    "RMSNormalization": (("scale",), _rms_norm),
    "GroupNormalization": (_AFFINE, _group_norm),
    "InstanceNormalization": (_AFFINE, _instance_norm),
}
