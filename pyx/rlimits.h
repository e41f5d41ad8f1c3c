/* Limits on the address space of the process. What is lent to the system counts under them, too,
 * and an allocation elsewhere cannot ask for it: it fails. */
#ifndef CYBN_RLIMITS_H
#define CYBN_RLIMITS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* Of what the limits leave to the process, this part may be kept. */
#define LIMITED_PART 32

/* The sizes that RLIMIT_AS and RLIMIT_DATA bound, in bytes; 0 where the system does not tell. */
static inline void used_sizes(uintmax_t *address_space, uintmax_t *data) {
    char text[256];
    unsigned long pages[2] = {0, 0};
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t length = read(file, text, sizeof text - 1);
        close(file);
        text[length > 0 ? length : 0] = 0;
        if (sscanf(text, "%lu %*u %*u %*u %*u %lu", &pages[0], &pages[1]) != 2)
            pages[0] = pages[1] = 0;
    }
    uintmax_t page = (uintmax_t)sysconf(_SC_PAGESIZE);
    *address_space = pages[0] * page;
    *data = pages[1] * page;
}

/* A part of what one limit would leave if the bytes that are kept were given back. */
static inline uintmax_t limited_part(rlim_t limit, uintmax_t used, uintmax_t kept) {
    if (limit == RLIM_INFINITY) return UINTMAX_MAX;
    uintmax_t others = used > kept ? used - kept : 0;
    return (limit > others ? limit - others : 0) / LIMITED_PART;
}

/* How many bytes may be kept where `kept` are now: no more than `most`. */
static inline size_t within_limits(size_t most, size_t kept) {
    struct rlimit address_space = {RLIM_INFINITY, RLIM_INFINITY}, data = address_space;
#ifdef RLIMIT_AS
    getrlimit(RLIMIT_AS, &address_space);
#endif
    getrlimit(RLIMIT_DATA, &data);
    if (address_space.rlim_cur == RLIM_INFINITY && data.rlim_cur == RLIM_INFINITY) return most;
    uintmax_t used_address_space, used_data;
    used_sizes(&used_address_space, &used_data);
    uintmax_t part = limited_part(address_space.rlim_cur, used_address_space, kept);
    uintmax_t part_of_data = limited_part(data.rlim_cur, used_data, kept);
    if (part_of_data < part) part = part_of_data;
    return part < most ? (size_t)part : most;
}

#else
static inline size_t within_limits(size_t most, size_t kept) {
    (void)kept;
    return most;
}
#endif

#endif
