"""from_flax: Flax' modules, of linen with their variables, and of nnx."""

from collections.abc import Mapping

from ._batch_norm_layer import BatchNorm
from ._interop import as_values, kind_of, make_layer, refusal, single, trailing
from ._norm_layers import GroupNorm, InstanceNorm, LayerNorm, RMSNorm


def from_flax(module, variables=None, *, path=""):
    """Return a layer that computes what a normalization of Flax does.

    Parameters
    ----------
    module : flax.linen.Module or flax.nnx.Module
        ``BatchNorm``, ``LayerNorm``, ``RMSNorm``, ``GroupNorm`` or ``InstanceNorm``.
    variables : mapping, optional
        Of a linen module: ``{"params": ..., "batch_stats": ...}``, as ``init`` returns them, of the
        module or of the model it is in; float32 or float64. A module that is bound has its own.
    path : str
        Where the module is in the variables of the model, as ``"Block_0/BatchNorm_0"``.

    Returns
    -------
    BatchNorm, LayerNorm, RMSNorm, GroupNorm or InstanceNorm
        With copies of its arrays; in training if the module says ``use_running_average=False``.

    Raises
    ------
    TypeError
        If it is anything else, or has arrays of another dtype. A class made from one of these
        counts if it has their ``__call__``.
    ValueError
        If variables are missing, or a setting has no counterpart.

    Notes
    -----
    - Flax' momentum weighs the old value, so it becomes ``1 - momentum``.
    - Flax averages the biased variance (n), cybn the unbiased one (n - 1). What was trained is
      used as it is; in further training it is the unbiased one of the new batches that is averaged.
    - With ``axis_name`` Flax takes the statistics of several devices, cybn those of this process.

    Examples
    --------
    >>> import cybn, jax
    >>> from flax import linen as nn
    >>> module = nn.BatchNorm(use_running_average=True, momentum=0.75)
    >>> variables = module.init(jax.random.key(0), jax.numpy.ones((4, 3)))
    >>> bn = cybn.from_flax(module, variables)
    >>> bn.num_features, bn.axis, bn.momentum, bn.training
    (3, -1, 0.25, False)
    """
    kind = kind_of(module, ("flax.linen.", "flax.nnx."), _KINDS, "__call__")
    if kind is None:
        raise refusal("module", "Flax", _KINDS, module)
    wanted = _wanted(module, kind)
    if hasattr(module, "scope"):
        arrays = _of_linen(module, wanted, variables, path)
    elif variables is None:
        arrays = {name: getattr(module, name) for name in wanted}
    else:
        raise TypeError("variables: expected None with a module of nnx, which has its own")
    arrays = {name: as_values(value, name) for name, value in arrays.items()}
    parameters = {"gamma": arrays.pop("scale", None), "beta": arrays.pop("bias", None)}
    return _KINDS[kind](module, parameters, **arrays)


def _wanted(module, kind):
    """Return the names of the arrays that a module has, each with its collection."""
    names = {}
    if module.use_scale:
        names["scale"] = "params"
    if getattr(module, "use_bias", False):  # RMSNorm has no such option
        names["bias"] = "params"
    if kind == "BatchNorm":
        names |= {"mean": "batch_stats", "var": "batch_stats"}
    return names


def _of_linen(module, wanted, variables, path):
    """Return the arrays of a linen module by their names."""
    if variables is None and module.scope is not None:
        variables = module.variables
    if not isinstance(variables, Mapping):
        raise TypeError(
            "variables: expected a mapping, as the init of a linen module returns it, "
            f"got {type(variables).__name__}"
        )
    arrays = {}
    for name, collection in wanted.items():
        place = [collection, *filter(None, path.split("/")), name]
        entry = variables
        for part in place:
            keys = sorted(map(str, entry)) if isinstance(entry, Mapping) else []
            if part not in keys:
                raise ValueError(
                    f"variables: expected {'/'.join(place)}, got {keys} in place of {part!r}; "
                    "path says where in a model's variables the module is"
                )
            entry = entry[part]
        arrays[name] = entry
    return arrays


def _batch_norm(module, parameters, mean, var):
    return make_layer(
        BatchNorm,
        len(mean),
        **parameters,
        statistics={"running_mean": mean, "running_var": var},
        training=module.use_running_average is False,
        axis=single(module.axis, "module.axis"),
        eps=module.epsilon,
        momentum=1 - module.momentum,
    )


def _layer_norm(module, parameters):
    return make_layer(LayerNorm, _lengths(module, parameters), **parameters, eps=module.epsilon)


def _rms_norm(module, parameters):
    lengths, gamma = _lengths(module, parameters), parameters["gamma"]
    return make_layer(RMSNorm, lengths, gamma=gamma, eps=module.epsilon)


def _group_norm(module, parameters):
    if module.reduction_axes is not None:
        raise ValueError(f"module.reduction_axes: expected None, got {module.reduction_axes}")
    groups, size = module.num_groups, module.group_size
    channels = groups * size if groups and size else _shape(module, parameters)[0]
    sizes = groups or channels // size, channels
    return make_layer(GroupNorm, *sizes, **parameters, axis=-1, eps=module.epsilon)


def _instance_norm(module, parameters):
    (channels,) = _shape(module, parameters)
    axis = single(module.feature_axes, "module.feature_axes")
    return make_layer(InstanceNorm, channels, **parameters, axis=axis, eps=module.epsilon)


def _lengths(module, parameters):
    """Return the lengths of the axes that are normalized over."""
    count = trailing(module.reduction_axes, None, "module.reduction_axes")
    shape = _shape(module, parameters)
    if trailing(module.feature_axes, None, "module.feature_axes") != count or len(shape) != count:
        raise ValueError(
            f"module.feature_axes: expected reduction_axes, {module.reduction_axes}, "
            f"got {module.feature_axes}, and parameters of shape {shape}"
        )
    return shape


def _shape(module, parameters):
    """Return the shape of the parameters."""
    for values in parameters.values():
        if values is not None:
            return values.shape
    if hasattr(module, "num_features"):
        return (module.num_features,)
    raise ValueError(
        "module: expected a scale or bias, which says how many features there are, got neither: "
        "make the layer of cybn with affine=False"
    )


_KINDS = {
    "BatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "GroupNorm": _group_norm,
    "InstanceNorm": _instance_norm,
}
