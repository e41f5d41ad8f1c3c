# The two passes over a block of a tile: sums of what was read, and the elementwise map.

from libc.string cimport memcpy, memset
from plan cimport WIDTH, Plan, first_channel, gather, spread, tile_width
from rows cimport LANES, differentiate, normalize, real, sum_strip

cdef extern from "cache.h" nogil:
    size_t into_line(const void* address) noexcept
    void stream_copy(void* target, const void* source, size_t size) noexcept
    void stream_fence() noexcept

cdef enum:
    CHUNK = 512     # values mapped into a buffer before they are streamed past the caches


cdef inline Py_ssize_t unit_offset(const Plan* p, Py_ssize_t tile, Py_ssize_t unit) noexcept nogil:
    return (first_channel(p, tile) * p.inner + unit // p.pieces * p.run_stride
            + unit % p.pieces * p.piece_rows * p.row_stride)


cdef inline Py_ssize_t unit_rows(const Plan* p, Py_ssize_t unit) noexcept nogil:
    return min(p.piece_rows, p.rows - unit % p.pieces * p.piece_rows)


cdef inline Py_ssize_t unit_tail(const Plan* p, Py_ssize_t unit) noexcept nogil:
    return p.tail if unit % p.pieces == p.pieces - 1 else 0


cdef inline void sum_rows(
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    const double* shift_u, const double* shift_v, double* sum_u, double* sum_uv,
) noexcept nogil:
    """Sum rows of any width, strip after strip; what is read next is the next strip."""
    cdef Py_ssize_t j = 0
    while j + LANES <= width:
        ahead = LANES if j + 2 * LANES <= width else rows * stride - j
        if u == v:
            sum_strip(u + j, u + j, stride, rows, LANES, ahead,
                      shift_u + j, shift_u + j, sum_u + j, sum_uv + j)
        else:
            sum_strip(u + j, v + j, stride, rows, LANES, ahead,
                      shift_u + j, shift_v + j, sum_u + j, sum_uv + j)
        j += LANES
    if j < width:
        sum_strip(u + j, v + j, stride, rows, width - j, rows * stride - j,
                  shift_u + j, shift_v + j, sum_u + j, sum_uv + j)


cdef inline void sum_block(
    const Plan* p, Py_ssize_t tile, Py_ssize_t block, const real* u, const real* v,
    const double* shift_u, const double* shift_v, double* sums,
) noexcept nogil:
    """Per channel: sum of u - shift_u to sums[0], of (u - shift_u) * (v - shift_v) to sums[1]."""
    cdef double u_lanes[WIDTH]
    cdef double v_lanes[WIDTH]
    cdef double sum_u[WIDTH]
    cdef double sum_uv[WIDTH]
    cdef Py_ssize_t width = tile_width(p, tile)
    cdef Py_ssize_t unit, offset, rows, tail
    shift_u = spread(p, tile, shift_u, u_lanes)
    shift_v = spread(p, tile, shift_v, v_lanes)
    memset(sum_u, 0, width * sizeof(double))
    memset(sum_uv, 0, width * sizeof(double))
    for unit in range(block * p.block_units, min((block + 1) * p.block_units, p.units)):
        offset = unit_offset(p, tile, unit)
        rows = unit_rows(p, unit)
        sum_rows(u + offset, v + offset, p.row_stride, rows, width,
                 shift_u, shift_v, sum_u, sum_uv)
        offset += rows * p.row_stride
        tail = unit_tail(p, unit)
        if tail:
            sum_rows(u + offset, v + offset, p.row_stride, 1, tail,
                     shift_u, shift_v, sum_u, sum_uv)
    gather(p, tile, sum_u, sums)
    gather(p, tile, sum_uv, sums + p.channels)


cdef inline void map_run(
    const real* x, const real* dy, real* out, Py_ssize_t offset, Py_ssize_t length,
    const double* mean, const double* slope, const double* center, const double* scale,
    Py_ssize_t step, bint stream,
) noexcept nogil:
    """Map neighbouring values, chunk by chunk."""
    cdef real chunk[CHUNK]
    cdef real* target = chunk
    cdef Py_ssize_t n, i = 0
    # In place, too, the map goes through the buffer: overlapping arrays would not be vectorized.
    cdef bint direct = not stream and out != x and out != dy
    while length > 0:
        # Every chunk but the first begins with a cache line of `out`.
        n = min(length, CHUNK - <Py_ssize_t>into_line(out + offset) // <Py_ssize_t>sizeof(real))
        if direct:
            target = out + offset
        if dy == NULL:
            normalize(x + offset, target, n, mean + i, slope + i, center + i, step)
        else:
            differentiate(x + offset, dy + offset, target, n,
                          mean + i, slope + i, center + i, scale + i, step)
        if stream:
            stream_copy(out + offset, chunk, n * sizeof(real))
        elif not direct:
            memcpy(out + offset, chunk, n * sizeof(real))
        offset += n
        length -= n
        i += n * step


cdef inline void map_block(
    const Plan* p, Py_ssize_t tile, Py_ssize_t block, const real* x, const real* dy, real* out,
    const double* coefficients, bint stream,
) noexcept nogil:
    """Map x (and dy, if not NULL) to out. `coefficients` are four rows of one value a channel."""
    cdef double lanes[4][WIDTH]
    cdef Py_ssize_t width = tile_width(p, tile)
    cdef Py_ssize_t unit, offset, rows, tail, _
    cdef const double* mean
    cdef const double* slope
    cdef const double* center
    cdef const double* scale
    mean = spread(p, tile, coefficients, lanes[0])
    slope = spread(p, tile, coefficients + p.channels, lanes[1])
    center = spread(p, tile, coefficients + 2 * p.channels, lanes[2])
    scale = spread(p, tile, coefficients + 3 * p.channels, lanes[3]) if dy != NULL else NULL
    for unit in range(block * p.block_units, min((block + 1) * p.block_units, p.units)):
        offset = unit_offset(p, tile, unit)
        rows = unit_rows(p, unit)
        tail = unit_tail(p, unit)
        if p.span == width and p.row_stride == width:   # one channel, its rows side by side
            map_run(x, dy, out, offset, rows * width + tail,
                    mean, slope, center, scale, 0, stream)
            continue
        for _ in range(rows):
            map_run(x, dy, out, offset, width, mean, slope, center, scale, 1, stream)
            offset += p.row_stride
        if tail:
            map_run(x, dy, out, offset, tail, mean, slope, center, scale, 1, stream)
    if stream:
        stream_fence()
