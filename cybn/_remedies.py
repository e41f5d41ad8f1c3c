"""What usually helps, as the end of an error's message; imported when something is refused."""

import numpy as np


def for_parameter(name, given, geometry):
    """Of a gamma, beta or running array of a shape that does not go with x."""
    lengths = _longer(given)
    if lengths and lengths == _longer(geometry.parameters):
        return f"; use {name}.reshape({', '.join(map(str, geometry.parameters))})"
    return for_lengths(geometry.shape, given, geometry.inside)


def for_lengths(shape, lengths, reduced):
    """Of lengths that axis does not have: which axes of `shape` have them."""
    lengths = _longer(lengths)
    last = len(shape) - len(lengths)
    starts = [i for i in range(last + 1) if lengths and shape[i : i + len(lengths)] == lengths]
    if not starts:
        return ""
    start, count = starts[-1], len(lengths)
    axes = _axes(start, count)
    has = f"axis {axes} has {lengths[0]}" if count == 1 else f"axes {axes} have {lengths}"
    if start == last:
        return f"; {has}: pass axis={_axes(-count, count)}?"
    return f"; {has}: {to_the_end(start, count) if reduced else f'pass axis={axes}?'}"


def to_the_end(start, count):
    """Of axes that are not the last ones, where those are reduced."""
    last = "it the last one" if count == 1 else "them the last ones"
    return f"np.moveaxis(x, {_axes(start, count)}, {_axes(-count, count)}) makes {last}"


def for_kept(shape, positions):
    """Of axes to be reduced, as NumPy has them, where the channels' are asked for."""
    kept = [i for i in range(len(shape)) if i not in positions]
    if not kept or kept[-1] - kept[0] >= len(kept) or len(set(positions)) < len(positions):
        return ""
    axes = _axes(kept[0], len(kept))
    return f"; axis names the channels', which are kept: pass axis={axes} to average over these"


def for_mask(where, shape, axis):
    """Of a mask whose shape does not go with x."""
    axis = axis % len(shape)
    if where.shape != shape[:axis] + shape[axis + 1 :]:
        return ""
    used = "where[..., None]" if axis == len(shape) - 1 else f"np.expand_dims(where, {axis})"
    return f"; use {used}"


def for_keys(state, own):
    """Of keys that a state lacks: the prefix under which it has them, with arrays that fit."""
    if not own:
        return ""
    first = next(iter(own))
    keys = [key for key in state if isinstance(key, str) and key.endswith(first)]
    prefixes = [key.removesuffix(first) for key in keys]
    fitting = [
        prefix
        for prefix in prefixes
        if all(getattr(state.get(prefix + key), "shape", None) == own[key].shape for key in own)
    ]
    return f"; pass prefix={min(fitting, key=len)!r}?" if fitting else ""


def for_dtype(dtype, name):
    """Of an array that holds no numbers."""
    if dtype.str == "|V2":
        return f"; if it was bfloat16 before np.save, use {name}.view(ml_dtypes.bfloat16)"
    return ""


def for_value(value, name):
    """Of something that NumPy makes no numbers of, and that may be anything."""
    try:
        return _for_value(value, name)
    except Exception:  # the error itself matters more
        return ""


def _for_value(value, name):
    if hasattr(value, "columns") and hasattr(value, "dtypes"):  # a DataFrame
        others = [str(c) for c in value.columns if np.asarray(value[c]).dtype.kind not in "fiub"]
        if others:
            return f"; columns that hold no plain numbers: {', '.join(others)}"
        return f"; use {name}.to_numpy(np.float64)"
    if isinstance(value, np.ndarray):
        return f"; use {name}.astype(np.float64)"
    if hasattr(value, "detach"):  # a tensor of PyTorch
        steps = ".detach()" if value.requires_grad else ""
        steps += ".cpu()" if value.device.type != "cpu" else ""
        steps += ".float()" if "bfloat16" in str(value.dtype) else ""
        return f"; use {name}{steps}" if steps else ""
    if "Tracer" in type(value).__name__:  # of JAX
        return "; call it outside of jax.jit, jax.grad and jax.vmap, or by jax.pure_callback"
    if hasattr(value, "toarray"):  # a sparse matrix
        return f"; use {name}.toarray()"
    return ""


def for_written(value, name):
    """Of something that is to be written to, and is no array."""
    if hasattr(value, "detach"):
        return f"; use {name}.numpy(), which has the same memory"
    if isinstance(value, (list, tuple)) or hasattr(value, "__array__"):
        return f"; use np.array({name}), which is then written to"
    return ""


def _longer(lengths):
    """Return the lengths that are not 1."""
    return tuple(n for n in lengths if n != 1)


def _axes(start, count):
    """Return what names so many axes."""
    return start if count == 1 else tuple(range(start, start + count))
