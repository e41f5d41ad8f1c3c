# Arrays as the kernels take them: plain ones, that is, NumPy arrays of a storage type (masks: bool)
# in native order, aligned and C-contiguous. Others the caller has to convert, or say what is wrong.
#
# Read from NumPy's own structure: a typed view of an array costs about 120 ns, a buffer 50.

from libc.string cimport memcmp, memset, strcmp, strrchr

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyTypeObject:
        const char* tp_name
    ctypedef struct PyArray_Descr:
        PyTypeObject* typeobj
        char kind
    ctypedef struct PyArrayObject:
        pass
    int NPY_FLOAT, NPY_DOUBLE, NPY_HALF, NPY_BOOL, NPY_USERDEF
    PyArray_Descr* PyArray_DESCR(PyArrayObject*)
    bint PyArray_ISCARRAY(PyArrayObject*)
    bint PyArray_ISCARRAY_RO(PyArrayObject*)
    int PyArray_TYPE(PyArrayObject*)
    int PyArray_NDIM(PyArrayObject*)
    Py_ssize_t* PyArray_DIMS(PyArrayObject*)
    void* PyArray_DATA(PyArrayObject*)

cdef enum:
    MOST_ARRAYS = 10

cdef enum:              # what an array holds: its place in STORAGE of kernels.pyx
    FLOAT32
    FLOAT64
    FLOAT16
    BFLOAT16
    BYTES               # of a mask
    UNKNOWN

# An array of a call, or None: then all is 0. Its shape may be read while the GIL is held.
cdef struct Array:
    PyArrayObject* object
    char* data
    Py_ssize_t size, itemsize, nbytes
    int storage, ndim
    const Py_ssize_t* shape

cdef struct Arrays:
    Array each[MOST_ARRAYS]
    int count
    bint refused        # one of them was not plain


cdef inline bint is_bfloat16(const PyArray_Descr* dtype) noexcept:
    """Whether it has the kind and name of that of ml_dtypes, which need not be there."""
    cdef const char* dot = strrchr(dtype.typeobj.tp_name, c'.')
    return dtype.kind == c'V' and strcmp(dot + 1 if dot else dtype.typeobj.tp_name, "bfloat16") == 0


cdef inline int storage_of(PyArrayObject* array, bint mask) noexcept:
    cdef int number = PyArray_TYPE(array)
    if mask:
        return BYTES if number == NPY_BOOL else UNKNOWN
    if number == NPY_FLOAT:
        return FLOAT32
    if number == NPY_DOUBLE:
        return FLOAT64
    if number == NPY_HALF:
        return FLOAT16
    # A type that NumPy does not have gets its number when it is registered.
    return BFLOAT16 if number >= NPY_USERDEF and is_bfloat16(PyArray_DESCR(array)) else UNKNOWN


cdef inline Py_ssize_t itemsize_of(int storage) noexcept:
    if storage == FLOAT32:
        return sizeof(float)
    return sizeof(double) if storage == FLOAT64 else 1 if storage == BYTES else 2


cdef inline bint is_usable(PyArrayObject* array, int storage, bint writable) noexcept:
    return (storage != UNKNOWN
            and (PyArray_ISCARRAY(array) if writable else PyArray_ISCARRAY_RO(array))
            and <size_t>PyArray_DATA(array) % itemsize_of(storage) == 0)    # flags are set by hand


cdef inline Array* take(
    Arrays* arrays, object given, type ndarray, bint writable=False, bint mask=False,
) noexcept:
    """Take an array, or None; one that is not plain makes the arrays `refused`."""
    cdef Array* array = &arrays.each[arrays.count]
    cdef int axis, storage
    memset(array, 0, sizeof(Array))
    arrays.count += 1
    if given is None:
        return array
    if type(given) is not ndarray:
        arrays.refused = True
        return array
    storage = storage_of(<PyArrayObject*>given, mask)
    if not is_usable(<PyArrayObject*>given, storage, writable):
        arrays.refused = True
        return array
    array.object = <PyArrayObject*>given
    array.storage, array.itemsize = storage, itemsize_of(storage)
    array.data = <char*>PyArray_DATA(array.object)
    array.ndim, array.shape = PyArray_NDIM(array.object), PyArray_DIMS(array.object)
    array.size = 1
    for axis in range(array.ndim):
        array.size *= array.shape[axis]
    array.nbytes = array.size * array.itemsize
    return array


cdef inline bint alike(const Array* a, const Array* b) noexcept:
    """Whether two arrays have the same shape and dtype."""
    return (a.ndim == b.ndim and a.storage == b.storage
            and memcmp(a.shape, b.shape, a.ndim * sizeof(Py_ssize_t)) == 0)


cdef inline bint is_vector(const Array* array, Py_ssize_t length) noexcept nogil:
    """Whether it is None, or an array of this shape."""
    return array.data == NULL or (array.ndim == 1 and array.size == length)


cdef inline bint overlap(const Array* a, const Array* b) noexcept nogil:
    return a.data < b.data + b.nbytes and b.data < a.data + a.nbytes


cdef inline bint same(const Array* a, const Array* b) noexcept nogil:
    """Whether two arrays have the same memory and dtype: one may be a view of the other."""
    return a.data == b.data and a.nbytes == b.nbytes and a.storage == b.storage


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
