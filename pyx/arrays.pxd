# Arrays as the kernels take them: plain ones, that is, NumPy arrays of native float32 or float64
# (masks: bool), aligned and C-contiguous. Others the caller has to convert, or say what is wrong.
#
# Read from NumPy's own structure: a typed view of an array costs about 120 ns, a buffer 50.

from libc.string cimport memcmp, memset

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyArrayObject:
        pass
    int NPY_FLOAT, NPY_DOUBLE, NPY_BOOL
    bint PyArray_ISCARRAY(PyArrayObject*)
    bint PyArray_ISCARRAY_RO(PyArrayObject*)
    int PyArray_TYPE(PyArrayObject*)
    int PyArray_NDIM(PyArrayObject*)
    Py_ssize_t* PyArray_DIMS(PyArrayObject*)
    void* PyArray_DATA(PyArrayObject*)

cdef enum:
    MOST_ARRAYS = 10

# An array of a call, or None: then all is 0. Its shape may be read while the GIL is held.
cdef struct Array:
    PyArrayObject* object
    char* data
    Py_ssize_t size, itemsize, nbytes
    int ndim
    const Py_ssize_t* shape

cdef struct Arrays:
    Array each[MOST_ARRAYS]
    int count
    bint refused        # one of them was not plain


cdef inline Py_ssize_t itemsize_of(int type_number, bint mask) noexcept:
    """Of a dtype that the kernels know, or 0."""
    if mask:
        return 1 if type_number == NPY_BOOL else 0
    if type_number == NPY_FLOAT:
        return sizeof(float)
    return sizeof(double) if type_number == NPY_DOUBLE else 0


cdef inline bint is_usable(PyArrayObject* array, bint writable, bint mask) noexcept:
    cdef Py_ssize_t itemsize = itemsize_of(PyArray_TYPE(array), mask)
    return (itemsize != 0 and (PyArray_ISCARRAY(array) if writable else PyArray_ISCARRAY_RO(array))
            and <size_t>PyArray_DATA(array) % itemsize == 0)    # a flag can be set by hand


cdef inline Array* take(
    Arrays* arrays, object given, type ndarray, bint writable=False, bint mask=False,
) noexcept:
    """Take an array, or None; one that is not plain makes the arrays `refused`."""
    cdef Array* array = &arrays.each[arrays.count]
    cdef int axis
    memset(array, 0, sizeof(Array))
    arrays.count += 1
    if given is None:
        return array
    if type(given) is not ndarray or not is_usable(<PyArrayObject*>given, writable, mask):
        arrays.refused = True
        return array
    array.object = <PyArrayObject*>given
    array.itemsize = itemsize_of(PyArray_TYPE(array.object), mask)
    array.data = <char*>PyArray_DATA(array.object)
    array.ndim, array.shape = PyArray_NDIM(array.object), PyArray_DIMS(array.object)
    array.size = 1
    for axis in range(array.ndim):
        array.size *= array.shape[axis]
    array.nbytes = array.size * array.itemsize
    return array


cdef inline bint alike(const Array* a, const Array* b) noexcept:
    """Whether two arrays have the same shape and dtype."""
    return (a.ndim == b.ndim and a.itemsize == b.itemsize
            and memcmp(a.shape, b.shape, a.ndim * sizeof(Py_ssize_t)) == 0)


cdef inline bint is_vector(const Array* array, Py_ssize_t length) noexcept nogil:
    """Whether it is None, or an array of this shape."""
    return array.data == NULL or (array.ndim == 1 and array.size == length)


cdef inline bint overlap(const Array* a, const Array* b) noexcept nogil:
    return a.data < b.data + b.nbytes and b.data < a.data + a.nbytes


cdef inline bint same(const Array* a, const Array* b) noexcept nogil:
    """Whether two arrays have the same memory and dtype: one may be a view of the other."""
    return a.data == b.data and a.nbytes == b.nbytes and a.itemsize == b.itemsize


cdef inline bint is_apart(
    const Arrays* arrays, const Array* written, const Array* may_be,
) noexcept nogil:
    """Whether a written array shares no memory with another one, unless it is that of `may_be`."""
    cdef const Array* other
    cdef int i
    for i in range(arrays.count):
        other = &arrays.each[i]
        if other == written or (other == may_be and same(other, written)):
            continue
        if overlap(written, other):
            return False
    return True
