"""Memory of large results, which is used again. Built for the plain baseline.

A large array that is freed goes back to the system, and the next one comes with pages that have to
be cleared: that costs as much as normalizing it. So pages of results are kept, a few blocks and
not much of the machine's memory. Those freed last are held: to lend pages to the system interrupts
the other threads. The rest is lent: the system may take it when it runs short. Blocks that were not
used for long go back.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport SIZE_MAX

cdef extern from "memory.h" nogil:
    const size_t PAGE, HUGE_PAGE
    void* map_pages(size_t size) noexcept
    void unmap_pages(void* start, size_t size) noexcept
    bint lend_pages(void* start, size_t size) noexcept
    double physical_memory() noexcept

cdef extern from "rlimits.h" nogil:
    size_t within_limits(size_t most, size_t kept) noexcept

cdef enum:
    MOST_KEPT = 64
    MOST_AGE = 4 * MOST_KEPT    # how many others may be kept before a block was used again

cdef struct Pages:
    char* start
    size_t size
    bint lent
    unsigned long long number   # of the time it was kept

# Guarded by the GIL. The oldest comes first.
cdef Pages kept[MOST_KEPT]
cdef int kept_count = 0
cdef size_t kept_size = 0
cdef size_t kept_limit = 0      # until the first Block says
cdef unsigned long long times_kept = 0


cdef size_t in_whole(size_t size, size_t page) noexcept:
    """A size, rounded up to pages."""
    return (size + page - 1) // page * page


cdef size_t size_of_pages(size_t size) noexcept:
    """What a result takes. Small pages take longer to clear, so they have to save a 32nd of it."""
    cdef size_t whole = in_whole(size, HUGE_PAGE)
    return whole if whole - size <= size // 32 else in_whole(size, PAGE)


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
    """Give the oldest pages back until there are no more than this, and none that is too old."""
    cdef Pages pages
    while kept_count and (kept_size > limit or kept_count > count or
                          times_kept - kept[0].number > MOST_AGE):
        pages = take(0)
        unmap_pages(pages.start, pages.size)


cdef int best_fit(size_t size) noexcept:
    """The smallest kept pages of this size, or up to an eighth more; of several the newest."""
    cdef int best = -1
    for i in range(kept_count - 1, -1, -1):
        if size <= kept[i].size <= size + size // 8 and (
                best < 0 or kept[i].size < kept[best].size):
            best = i
    return best


cdef void trim(Pages* pages, size_t size) noexcept:
    """Lend huge pages beyond a size; give them back where lent pages count as well."""
    size = in_whole(size, HUGE_PAGE)
    if pages.size > size and (
            within_limits(SIZE_MAX, 0) < SIZE_MAX or
            not (pages.lent or lend_pages(pages.start + size, pages.size - size))):
        unmap_pages(pages.start + size, pages.size - size)
        pages.size = size


cdef Pages get_pages(size_t size) noexcept:
    """Pages of this size, kept or new; the start is NULL if there is no memory."""
    cdef Pages pages
    cdef int index = best_fit(size)
    if index >= 0:
        pages = take(index)
        trim(&pages, size)
        return pages
    pages = Pages(<char*>map_pages(size), size, False, 0)
    if pages.start == NULL and kept_count:
        drop(0, 0)
        pages.start = <char*>map_pages(size)
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
    global kept_count, kept_size, times_kept
    cdef size_t limit = within_limits(kept_limit, kept_size + pages.size)
    if pages.size > limit:
        unmap_pages(pages.start, pages.size)
        drop(limit, MOST_KEPT)
        return
    times_kept += 1
    drop(limit - pages.size, MOST_KEPT - 1)
    pages.lent, pages.number = False, times_kept
    kept[kept_count] = pages
    kept_count += 1
    kept_size += pages.size
    lend()


cdef class Block:
    """Uninitialized memory for an array, of at least one byte; no more than `limit` are kept."""

    cdef Pages pages
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size, size_t limit):
        global kept_limit
        kept_limit = limit
        self.size = size
        self.pages = get_pages(size_of_pages(size))
        if self.pages.start == NULL:
            raise MemoryError(f"cybn: no memory for a result of {size} bytes")

    def __dealloc__(self):
        if self.pages.start != NULL:
            keep(self.pages)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.pages.start, self.size, False, flags)


def machine_memory():
    """The bytes of memory of the machine."""
    return int(physical_memory())


def kept_memory():
    """How many bytes are kept."""
    return kept_size


def kept_memory_limit(size_t limit):
    """How many bytes may be kept now if `limit` may be where the process is not limited."""
    return within_limits(limit, kept_size)


def set_kept_memory(size_t limit):
    """Keep no more bytes than this."""
    global kept_limit
    kept_limit = limit
    drop(limit, MOST_KEPT)
    lend()
