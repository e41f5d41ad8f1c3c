/* Pages from the system, and pages given back when it needs them. */
#ifndef CYBN_MEMORY_H
#define CYBN_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define PAGE ((size_t)64 << 10) /* a whole number of the pages of any system */
#define HUGE_PAGE ((size_t)2 << 20)

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#include <unistd.h>

/* Huge pages, where there are any: their first use costs a fault for 2 MiB, not for 4 KiB.
 * What is left of a size beyond them has small pages. */
static inline void *map_pages(size_t size) {
    char *mapped = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return NULL;
    size_t head = -(uintptr_t)mapped % HUGE_PAGE;
    if (head) munmap(mapped, head);
    if (head != HUGE_PAGE) munmap(mapped + head + size, HUGE_PAGE - head);
#ifdef MADV_HUGEPAGE
    madvise(mapped + head, size, MADV_HUGEPAGE);
#endif
    return mapped + head;
}

static inline void unmap_pages(void *start, size_t size) { munmap(start, size); }

/* Until they are written to again the system may take them, as soon as it needs memory.
 * Returns 0 if it cannot do that. */
static inline int lend_pages(void *start, size_t size) {
#ifdef MADV_FREE
    return madvise(start, size, MADV_FREE) == 0;
#else
    return 0;
#endif
}

static inline double physical_memory(void) {
    return (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
}

#else /* plain memory: as there seems to be none, none is kept */
#include <stdlib.h>
static inline void *map_pages(size_t size) { return malloc(size); }
static inline void unmap_pages(void *start, size_t size) { (void)size, free(start); }
static inline int lend_pages(void *start, size_t size) { return (void)start, (void)size, 0; }
static inline double physical_memory(void) { return 0; }
#endif

#endif
