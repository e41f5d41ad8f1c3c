"""from_keras: Keras' layers."""

from ._batch_norm_layer import BatchNorm
from ._interop import as_values, kind_of, make_layer, refusal, single, trailing
from ._norm_layers import GroupNorm, LayerNorm, RMSNorm


def from_keras(layer):
    """Return a layer that computes what a normalization of Keras does.

    Parameters
    ----------
    layer : keras.layers.Layer
        ``BatchNormalization``, ``LayerNormalization``, ``GroupNormalization`` or
        ``RMSNormalization``, built, of float32 or float64, with any backend.

    Returns
    -------
    BatchNorm, LayerNorm, GroupNorm or RMSNorm
        With copies of its arrays, in inference, as Keras' layers are unless a call says otherwise.
        A batch norm with ``trainable=False`` is frozen, as in Keras.

    Raises
    ------
    TypeError
        If it is anything else, or has variables of another dtype. A class made from one of these
        counts if it has their ``call``.
    ValueError
        If it was not built, or a setting has no counterpart.

    Notes
    -----
    - Keras' momentum weighs the old value, so it becomes ``1 - momentum``.
    - Keras averages the biased variance (n), cybn the unbiased one (n - 1). What was trained is
      used as it is; in further training it is the unbiased one of the new batches that is averaged.

    Examples
    --------
    >>> import cybn, keras
    >>> layer = keras.layers.BatchNormalization(momentum=0.75)
    >>> layer.build((None, 8, 8, 3))
    >>> bn = cybn.from_keras(layer)
    >>> bn.num_features, bn.axis, bn.eps, bn.momentum
    (3, -1, 0.001, 0.25)
    """
    kind = kind_of(layer, ("keras.", "tf_keras."), _KINDS, "call")
    if kind is None:
        raise refusal("layer", "Keras", _KINDS, layer)
    if not layer.built:
        raise ValueError(
            "layer: expected a built layer, got one without variables: "
            "call layer.build(input_shape), or pass a batch through it first"
        )
    for option in ("renorm", "rms_scaling"):
        if getattr(layer, option, False):
            raise ValueError(f"layer.{option}: expected False, got True, which has no counterpart")
    return _KINDS[kind](layer)


def _parameters(layer):
    return {name: as_values(getattr(layer, name), f"layer.{name}") for name in ("gamma", "beta")}


def _batch_norm(layer):
    mean = as_values(layer.moving_mean, "layer.moving_mean")
    var = as_values(layer.moving_variance, "layer.moving_variance")
    made = make_layer(
        BatchNorm,
        len(mean),
        **_parameters(layer),
        statistics={"running_mean": mean, "running_var": var},
        axis=single(layer.axis, "layer.axis"),
        eps=layer.epsilon,
        momentum=1 - layer.momentum,
    )
    return made if layer.trainable else made.freeze()


def _group_norm(layer):
    channels = _input_shape(layer)[layer.axis]
    options = {"axis": layer.axis, "eps": layer.epsilon}
    return make_layer(GroupNorm, layer.groups, channels, **_parameters(layer), **options)


def _layer_norm(layer):
    return make_layer(LayerNorm, _lengths(layer), **_parameters(layer), eps=layer.epsilon)


def _rms_norm(layer):
    gamma = as_values(layer.scale, "layer.scale")
    return make_layer(RMSNorm, _lengths(layer), gamma=gamma, eps=layer.epsilon)


def _lengths(layer):
    """Return the lengths of the axes that are normalized over."""
    shape = _input_shape(layer)
    return tuple(shape[-trailing(layer.axis, len(shape), "layer.axis") :])


def _input_shape(layer):
    return layer.get_build_config()["input_shape"]


_KINDS = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "RMSNormalization": _rms_norm,
}
