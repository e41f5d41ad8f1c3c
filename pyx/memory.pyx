"""Memory of large results, which is used again. Built for the plain baseline.

A large array that is freed goes back to the system, and the next one comes with pages that have to
be cleared: that costs as much as normalizing it. So pages of results are kept, a few blocks and
not much of the machine's memory. Those freed last are held: to lend pages to the system interrupts
the other threads. The rest is lent: the system may take it when it runs short.
"""

from cpython.buffer cimport PyBuffer_FillInfo

cdef extern from "memory.h" nogil:
    const size_t HUGE_PAGE
    void* map_pages(size_t size) noexcept
    void unmap_pages(void* start, size_t size) noexcept
    bint lend_pages(void* start, size_t size) noexcept
    double physical_memory() noexcept

cdef enum:
    MOST_KEPT = 64

cdef struct Pages:
    void* start
    size_t size
    bint lent

# Guarded by the GIL. The oldest comes first.
cdef Pages kept[MOST_KEPT]
cdef int kept_count = 0
cdef size_t kept_size = 0
cdef size_t kept_limit = <size_t>(max(0, physical_memory()) / 16)


cdef Pages take(int index) noexcept:
    """Remove pages from those that are kept."""
    global kept_count, kept_size
    cdef Pages pages = kept[index]
    kept_count -= 1
    kept_size -= pages.size
    for i in range(index, kept_count):
        kept[i] = kept[i + 1]
    return pages


cdef void drop(size_t limit, int count) noexcept:
    """Give the oldest pages back until there are no more than this."""
    cdef Pages pages
    while kept_size > limit or kept_count > count:
        pages = take(0)
        unmap_pages(pages.start, pages.size)


cdef Pages get_pages(size_t size) noexcept:
    """Pages of this size, kept or new; the start is NULL if there is no memory."""
    cdef Pages pages
    for i in range(kept_count - 1, -1, -1):
        if kept[i].size == size:
            return take(i)
    pages = Pages(map_pages(size), size, False)
    if pages.start == NULL and kept_count:
        drop(0, 0)
        pages.start = map_pages(size)
    return pages


cdef void lend() noexcept:
    """Lend all but the newest, a quarter of the limit; give back what cannot be lent."""
    cdef size_t held = 0
    for i in range(kept_count - 1, -1, -1):
        held += kept[i].size
        if held > kept_limit // 4 and not kept[i].lent:
            kept[i].lent = lend_pages(kept[i].start, kept[i].size)
            if not kept[i].lent:
                drop(kept_limit, kept_count - 1 - i)
                return


cdef void keep(Pages pages) noexcept:
    global kept_count, kept_size
    if pages.size > kept_limit:
        unmap_pages(pages.start, pages.size)
        return
    drop(kept_limit - pages.size, MOST_KEPT - 1)
    pages.lent = False
    kept[kept_count] = pages
    kept_count += 1
    kept_size += pages.size
    lend()


cdef class Block:
    """Uninitialized memory for an array, of at least one byte."""

    cdef Pages pages
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size):
        self.size = size
        self.pages = get_pages((<size_t>size + HUGE_PAGE - 1) // HUGE_PAGE * HUGE_PAGE)
        if self.pages.start == NULL:
            raise MemoryError(f"cybn: no memory for a result of {size} bytes")

    def __dealloc__(self):
        if self.pages.start != NULL:
            keep(self.pages)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.pages.start, self.size, False, flags)


def kept_memory():
    """The bytes that are kept, and how many may be."""
    return kept_size, kept_limit


def set_kept_memory(size_t limit):
    """Keep no more bytes than this."""
    global kept_limit
    kept_limit = limit
    drop(limit, MOST_KEPT)
    lend()
