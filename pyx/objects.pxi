# What a call is made of, as Python hands it in: its layout, settings, schedule and arrays.
# A part of kernels.pyx, which imports what it needs.

cdef void set_passes(Call* call, const real* x) noexcept nogil:
    call.sum_pass, call.map_pass = sum_pass(call, x), map_pass(call, x)


cdef void load(const real* values, Py_ssize_t stride, Py_ssize_t count, double* to) noexcept nogil:
    cdef Py_ssize_t c
    if stride == 1:
        widen(values, to, count)
        return
    for c in range(count):
        widen(values + c * stride, to + c, 1)


cdef void store(const double* values, Py_ssize_t count, real* to) noexcept nogil:
    narrow(values, to, count, False)


cdef Storage STORAGE[STORAGES]
STORAGE[MASK] = Storage(NPY_BOOL, 1, NULL, NULL, NULL, 0, 0)
STORAGE[FLOAT32] = Storage(
    NPY_FLOAT, 4, <Load>load[float], <Store>store[float], <SetPasses>set_passes[float],
    2.0 ** -24, 2.0 ** -150)
STORAGE[FLOAT64] = Storage(
    NPY_DOUBLE, 8, <Load>load[double], <Store>store[double], <SetPasses>set_passes[double],
    2.0 ** -53, 0)
STORAGE[FLOAT16] = Storage(
    NPY_HALF, 2, <Load>load[float16], <Store>store[float16], <SetPasses>set_passes[float16],
    2.0 ** -11, 2.0 ** -25)
STORAGE[BFLOAT16] = Storage(    # of no number of its own
    -1, 2, <Load>load[bfloat16], <Store>store[bfloat16], <SetPasses>set_passes[bfloat16],
    2.0 ** -8, 2.0 ** -134)


cdef class Layout:
    """The plan for a shape of at least one value; made once, used by many calls."""

    cdef Plan plan
    cdef readonly Py_ssize_t saved_size
    cdef readonly Py_ssize_t scratch_size   # 0 if a thread has so much of its own
    cdef tuple axes

    def __cinit__(self, *axes):
        cdef Shape s
        (s.samples, s.outer, s.channels, s.inner, s.group, s.parameters, s.shared, s.inside) = axes
        self.plan = make_plan(s)
        self.saved_size = saved_values(&self.plan)
        self.scratch_size = scratch_values(&self.plan)
        if self.scratch_size <= THREAD_SCRATCH:
            self.scratch_size = 0
        self.axes = axes

    def __reduce__(self):
        return Layout, self.axes


cdef class Settings:
    """What a call computes, apart from its arrays: how x is normalized."""

    cdef readonly bint training     # with its own statistics
    cdef readonly bint centered     # about its mean; RMS norm is not
    cdef readonly double momentum, eps
    cdef readonly str activation    # or None
    cdef readonly double slope      # of it, below 0
    cdef const Activation* row

    def __init__(
        self, bint training, bint centered, double momentum, double eps, str activation=None,
        double slope=0,
    ):
        self.training, self.centered, self.momentum, self.eps = training, centered, momentum, eps
        self.activation, self.slope = activation, slope
        self.row = NULL
        if activation is not None:
            self.row = &ACTIVATIONS[ACTIVATION_NAMES.index(activation)]

    @property
    def by_result(self):
        """Whether the activation's derivative is decided by its result."""
        return self.row != NULL and self.row.by_result

    def __reduce__(self):
        return Settings, (self.training, self.centered, self.momentum, self.eps, self.activation,
                          self.slope)


cdef class Schedule:
    """How a call runs, which changes no result."""

    cdef readonly bint from_memory  # the map prefetches what it reads; sums always do
    cdef readonly bint stream       # it writes past the caches
    cdef readonly Py_ssize_t cache_size     # what may be counted on of the last level
    cdef readonly int threads

    def __init__(self, bint from_memory, bint stream, Py_ssize_t cache_size, int threads):
        self.from_memory, self.stream, self.cache_size = from_memory, stream, cache_size
        self.threads = threads


@freelist(8)
cdef class Arrays:
    """The arrays of a call, or None for each that there is not.

    `where` is a mask; `counts` are then the values of each channel that it selects. `third` is the
    residual; in backward, where the result decides the activation's derivative, it is the result.
    Backward writes dx to `out`, and the gradients to `gamma`, `beta` and `dresidual`.

    `merged` has what all members of a group sum, by channel, in place of what x does: mean and
    variance, or in backward center and slope, to which backward without an `out` gives x's share.
    """

    cdef public object x, dy, out, third, dresidual, where, counts, gamma, beta
    cdef public object running_mean, running_var, saved, scratch, merged

    def __init__(
        self, x, out, gamma, beta, running_mean=None, running_var=None, third=None, dy=None,
        where=None, counts=None, saved=None,
    ):
        self.x, self.dy, self.out, self.gamma, self.beta = x, dy, out, gamma, beta
        self.running_mean, self.running_var = running_mean, running_var
        self.third, self.where, self.counts, self.saved = third, where, counts, saved

    def kept(self):
        """Let go of what backward does not need again, or has from elsewhere: that is x."""
        self.x = self.out = self.running_mean = self.running_var = self.scratch = None
        self.merged = None
        return self

    def again(self, x, dy, out, gamma, beta):
        """Those of backward, with what was kept."""
        cdef Arrays arrays = Arrays.__new__(Arrays)
        arrays.x, arrays.dy, arrays.out, arrays.gamma, arrays.beta = x, dy, out, gamma, beta
        arrays.third, arrays.where, arrays.counts = self.third, self.where, self.counts
        arrays.saved = self.saved
        return arrays

    def __reduce__(self):
        return Arrays, (self.x, self.out, self.gamma, self.beta, self.running_mean,
                        self.running_var, self.third, self.dy, self.where, self.counts, self.saved)


cdef void view(Views* views, Arrays arrays, bint forward, bint training) noexcept:
    """Look at the arrays of a call; those that it writes to have to be writable."""
    views.storages, views.count, views.refused = STORAGE, 0, False
    take(views, &views.x, arrays.x, ndarray)
    take(views, &views.dy, arrays.dy, ndarray)
    take(views, &views.out, arrays.out, ndarray, True)
    take(views, &views.third, arrays.third, ndarray)
    take(views, &views.dresidual, arrays.dresidual, ndarray, True)
    take(views, &views.where, arrays.where, ndarray, False, True)
    take(views, &views.counts, arrays.counts, ndarray)
    take(views, &views.gamma, arrays.gamma, ndarray, not forward)
    take(views, &views.beta, arrays.beta, ndarray, not forward)
    take(views, &views.running_mean, arrays.running_mean, ndarray, training)
    take(views, &views.running_var, arrays.running_var, ndarray, training)
    take(views, &views.saved, arrays.saved, ndarray, forward)
    take(views, &views.scratch, arrays.scratch, ndarray, True)
    take(views, &views.merged, arrays.merged, ndarray, True)
