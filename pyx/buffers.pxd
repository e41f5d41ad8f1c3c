# Arrays as the kernels take them: plain ones, that is, NumPy arrays of native float32 or float64
# (masks: bool), aligned and C-contiguous. Others the caller has to convert, or say what is wrong.
#
# Plain buffers rather than typed views: they cost half as much, which is most of a small call,
# take an array of any rank, and let one check serve the caller too.

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.string cimport memcmp, memset, strchr

cdef enum:
    MOST_ARRAYS = 9

# What one call has borrowed. An array that is None has a view of zeros.
cdef struct Buffers:
    Py_buffer views[MOST_ARRAYS]
    int count
    bint refused        # one of them was not plain


cdef inline Py_buffer* borrow(
    Buffers* buffers, object array, type ndarray, bint writable=False, const char* formats=b"fd",
) except NULL:
    """Borrow an array, or None; one that is not plain makes the buffers `refused`."""
    cdef Py_buffer* view = &buffers.views[buffers.count]
    memset(view, 0, sizeof(Py_buffer))
    buffers.count += 1
    if array is None:
        return view
    if type(array) is not ndarray:
        buffers.refused = True
        return view
    try:
        PyObject_GetBuffer(
            array, view,
            PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (PyBUF_WRITABLE if writable else 0))
    except (BufferError, ValueError):
        buffers.refused = True
        return view
    if (strchr(formats, view.format[0]) == NULL or view.format[1]
            or <size_t>view.buf % view.itemsize):
        buffers.refused = True
    return view


cdef inline void give_back(Buffers* buffers) noexcept:
    while buffers.count:
        buffers.count -= 1
        PyBuffer_Release(&buffers.views[buffers.count])


cdef inline bint alike(const Py_buffer* a, const Py_buffer* b) noexcept nogil:
    """Whether two arrays have the same shape and dtype."""
    return (a.ndim == b.ndim and a.itemsize == b.itemsize
            and memcmp(a.shape, b.shape, a.ndim * sizeof(Py_ssize_t)) == 0)


cdef inline bint is_vector(const Py_buffer* view, Py_ssize_t length) noexcept nogil:
    """Whether it is None, or an array of this shape."""
    return view.buf == NULL or (view.ndim == 1 and view.shape[0] == length)


cdef inline bint overlap(const Py_buffer* a, const Py_buffer* b) noexcept nogil:
    cdef const char* start_a = <const char*>a.buf
    cdef const char* start_b = <const char*>b.buf
    return start_a < start_b + b.len and start_b < start_a + a.len


cdef inline bint is_apart(
    const Buffers* buffers, const Py_buffer* written, const Py_buffer* may_be,
) noexcept nogil:
    """Whether a written array shares no memory with another one, unless it is `may_be` itself."""
    cdef const Py_buffer* other
    cdef int i
    for i in range(buffers.count):
        other = &buffers.views[i]
        if other == written or (other == may_be and <void*>other.obj == <void*>written.obj):
            continue
        if overlap(written, other):
            return False
    return True
