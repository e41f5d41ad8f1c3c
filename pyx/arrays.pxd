# Arrays as the kernels take them: plain ones, that is, NumPy arrays of a storage type (masks: bool)
# in native order, aligned and C-contiguous. Others the caller has to convert, or say what is wrong.
#
# Read from NumPy's own structure: a typed view of an array costs about 120 ns, a buffer 50.

from libc.string cimport memcmp, strcmp, strrchr

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyTypeObject:
        const char* tp_name
    ctypedef struct PyArray_Descr:
        PyTypeObject* typeobj
        char kind
    ctypedef struct PyArrayObject:
        pass
    int NPY_USERDEF
    PyArray_Descr* PyArray_DESCR(PyArrayObject*)
    bint PyArray_ISCARRAY(PyArrayObject*)
    bint PyArray_ISCARRAY_RO(PyArrayObject*)
    int PyArray_TYPE(PyArrayObject*)
    int PyArray_NDIM(PyArrayObject*)
    Py_ssize_t* PyArray_DIMS(PyArrayObject*)
    void* PyArray_DATA(PyArrayObject*)

ctypedef void (*Load)(const void*, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
ctypedef void (*Store)(const double*, Py_ssize_t, void*) noexcept nogil
ctypedef void (*SetPasses)(void*, const void*) noexcept nogil

cdef struct Storage:    # a dtype, and what can be done with its values
    int type_number
    Py_ssize_t itemsize
    Load load               # so many, each a stride behind the last one
    Store store             # so many neighbours
    SetPasses set_passes    # of a Call
    double roundoff         # relative, at the most
    double underflow        # what is not larger is rounded to 0

cdef enum:              # rows of the table of storage types
    MASK                    # bool
    FLOAT32
    FLOAT64
    FLOAT16
    BFLOAT16
    STORAGES

# An array of a call, or None: then its data are NULL. Its shape may be read while the GIL is held.
cdef struct Array:
    PyArrayObject* object
    const Storage* storage
    char* data
    Py_ssize_t size, itemsize, nbytes
    int ndim
    const Py_ssize_t* shape

cdef struct Views:      # of the arrays of a call
    Array x
    Array dy
    Array out
    Array third
    Array dresidual
    Array where
    Array counts
    Array gamma
    Array beta
    Array running_mean
    Array running_var
    Array saved
    Array scratch
    Array merged
    const Array* given[14]      # those that there are
    int count
    const Storage* storages     # the table
    bint refused                # one of them was not plain


cdef inline bint is_bfloat16(const PyArray_Descr* dtype) noexcept:
    """Whether it has the kind and name of that of ml_dtypes, which need not be there."""
    cdef const char* dot = strrchr(dtype.typeobj.tp_name, c'.')
    return dtype.kind == c'V' and strcmp(dot + 1 if dot else dtype.typeobj.tp_name, "bfloat16") == 0


cdef inline const Storage* storage_of(
    const Storage* storages, PyArrayObject* array, bint mask,
) noexcept:
    """The row of a dtype, or NULL."""
    cdef int number = PyArray_TYPE(array), i
    for i in range(MASK if mask else FLOAT32, FLOAT32 if mask else BFLOAT16):
        if storages[i].type_number == number:
            return &storages[i]
    # A type that NumPy does not have gets its number when it is registered.
    if number >= NPY_USERDEF and not mask and is_bfloat16(PyArray_DESCR(array)):
        return &storages[BFLOAT16]
    return NULL


cdef inline bint is_usable(
    PyArrayObject* array, const Storage* storage, bint writable,
) noexcept:
    return (storage != NULL
            and (PyArray_ISCARRAY(array) if writable else PyArray_ISCARRAY_RO(array))
            and <size_t>PyArray_DATA(array) % storage.itemsize == 0)    # a flag can be set by hand


cdef inline void take(
    Views* views, Array* array, object given, type ndarray, bint writable=False, bint mask=False,
) noexcept:
    """Take an array, or None; one that is not plain makes the views `refused`."""
    cdef int axis
    array.data, array.storage = NULL, NULL
    array.size = array.itemsize = array.nbytes = 0
    if given is None:
        return
    if type(given) is not ndarray:
        views.refused = True
        return
    array.object = <PyArrayObject*>given
    array.storage = storage_of(views.storages, array.object, mask)
    if not is_usable(array.object, array.storage, writable):
        views.refused = True
        return
    array.itemsize = array.storage.itemsize
    array.data = <char*>PyArray_DATA(array.object)
    array.ndim, array.shape = PyArray_NDIM(array.object), PyArray_DIMS(array.object)
    array.size = 1
    for axis in range(array.ndim):
        array.size *= array.shape[axis]
    array.nbytes = array.size * array.itemsize
    views.given[views.count] = array
    views.count += 1


cdef inline bint same_shape(const Array* a, const Array* b) noexcept:
    return a.ndim == b.ndim and memcmp(a.shape, b.shape, a.ndim * sizeof(Py_ssize_t)) == 0


cdef inline bint alike(const Array* a, const Array* b) noexcept:
    """Whether two arrays have the same shape and dtype."""
    return a.storage == b.storage and same_shape(a, b)


cdef inline bint is_vector(const Array* array, Py_ssize_t length) noexcept nogil:
    """Whether it is None, or an array of this shape."""
    return array.data == NULL or (array.ndim == 1 and array.size == length)


cdef inline bint overlap(const Array* a, const Array* b) noexcept nogil:
    return a.data < b.data + b.nbytes and b.data < a.data + a.nbytes


cdef inline bint same(const Array* a, const Array* b) noexcept nogil:
    """Whether two arrays have the same memory and dtype: one may be a view of the other."""
    return a.data == b.data and a.nbytes == b.nbytes and a.storage == b.storage


cdef inline bint is_apart(
    Views* views, const Array* written, const Array* may_be,
) noexcept nogil:
    """Whether a written array shares no memory with another one, unless it is that of `may_be`."""
    cdef const Array* other
    cdef int i
    for i in range(views.count if written.data != NULL else 0):
        other = views.given[i]
        if other == written or (other == may_be and same(other, written)):
            continue
        if overlap(written, other):
            return False
    return True
