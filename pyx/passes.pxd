# The two passes over a block of a tile: sums of what was read, and the elementwise map.

from libc.string cimport memcpy, memset
from plan cimport WIDTH, Plan, first_channel, gather, spread, tile_width
from rows cimport LANES, differentiate, normalize, real, sum_strip

cdef extern from "cache.h" nogil:
    void require "assert"(bint) noexcept     # of the debug build
    size_t into_line(const void* address) noexcept
    void prefetch(const void* address, size_t size) noexcept
    void stream_copy(void* target, const void* source, size_t size) noexcept
    void stream_fence() noexcept

cdef enum:
    # Values that are mapped into a buffer before they are streamed past the caches: of a long run,
    # few, so that reading and writing alternate; of a row of lanes all, wherever it starts.
    RUN_CHUNK = 256
    ROW_CHUNK = WIDTH + 16


cdef inline Py_ssize_t unit_offset(const Plan* p, Py_ssize_t tile, Py_ssize_t unit) noexcept nogil:
    return (first_channel(p, tile) * p.inner + unit // p.pieces * p.run_stride
            + unit % p.pieces * p.piece_rows * p.row_stride)


cdef inline Py_ssize_t unit_rows(const Plan* p, Py_ssize_t unit) noexcept nogil:
    return min(p.piece_rows, p.rows - unit % p.pieces * p.piece_rows)


cdef inline Py_ssize_t unit_tail(const Plan* p, Py_ssize_t unit) noexcept nogil:
    return p.tail if unit % p.pieces == p.pieces - 1 else 0


cdef inline void check_unit(const Plan* p, Py_ssize_t tile, Py_ssize_t unit) noexcept nogil:
    """In the debug build: abort if a unit reaches outside of its array."""
    cdef Py_ssize_t offset = unit_offset(p, tile, unit)
    cdef Py_ssize_t rows = unit_rows(p, unit)
    require(0 <= tile < p.tiles and 0 <= unit < p.units and offset >= 0 and rows >= 0)
    require(0 < tile_width(p, tile) <= WIDTH and unit_tail(p, unit) <= p.row_stride)
    require(rows == 0 or offset + (rows - 1) * p.row_stride + tile_width(p, tile) <= p.size)
    require(offset + rows * p.row_stride + unit_tail(p, unit) <= p.size or not unit_tail(p, unit))


cdef inline void sum_rows(
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t ahead, const double* shift_u, const double* shift_v, double* sum_u, double* sum_uv,
) noexcept nogil:
    """Sum rows of any width, strip after strip."""
    cdef Py_ssize_t j = 0
    while j + LANES <= width:
        if u == v and shift_u == shift_v:
            sum_strip(u + j, u + j, stride, rows, LANES, ahead,
                      shift_u + j, shift_u + j, sum_u + j, sum_uv + j)
        else:
            sum_strip(u + j, v + j, stride, rows, LANES, ahead,
                      shift_u + j, shift_v + j, sum_u + j, sum_uv + j)
        j += LANES
    if j < width:
        sum_strip(u + j, v + j, stride, rows, width - j, ahead,
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
    cdef bint same = shift_u == shift_v
    shift_u = spread(p, tile, shift_u, u_lanes)
    shift_v = shift_u if same else spread(p, tile, shift_v, v_lanes)
    memset(sum_u, 0, width * sizeof(double))
    memset(sum_uv, 0, width * sizeof(double))
    for unit in range(block * p.block_units, min((block + 1) * p.block_units, p.units)):
        check_unit(p, tile, unit)
        offset = unit_offset(p, tile, unit)
        rows = unit_rows(p, unit)
        sum_rows(u + offset, v + offset, p.row_stride, rows, width, p.sum_ahead,
                 shift_u, shift_v, sum_u, sum_uv)
        offset += rows * p.row_stride
        tail = unit_tail(p, unit)
        if tail:
            sum_rows(u + offset, v + offset, p.row_stride, 1, tail, p.sum_ahead,
                     shift_u, shift_v, sum_u, sum_uv)
    gather(p, tile, sum_u, sums)
    gather(p, tile, sum_uv, sums + p.channels)


cdef inline void map_run(
    const real* x, const real* dy, real* out, Py_ssize_t offset, Py_ssize_t length,
    const double* mean, const double* slope, const double* center, const double* scale,
    Py_ssize_t step, Py_ssize_t ahead, bint stream,
) noexcept nogil:
    """Map neighbouring values, chunk by chunk."""
    cdef real buffer[ROW_CHUNK]
    cdef real* target = buffer
    cdef Py_ssize_t chunk = ROW_CHUNK if step else RUN_CHUNK
    cdef Py_ssize_t n, i = 0
    # In place, too, the map goes through the buffer: overlapping arrays would not be vectorized.
    cdef bint direct = not stream and out != x and out != dy
    while length > 0:
        # Every chunk but the first begins with a cache line of `out`.
        n = min(length, chunk - <Py_ssize_t>into_line(out + offset) // <Py_ssize_t>sizeof(real))
        prefetch(x + offset + ahead, n * sizeof(real))
        if dy != NULL:
            prefetch(dy + offset + ahead, n * sizeof(real))
        if direct:
            target = out + offset
        if dy == NULL:
            normalize(x + offset, target, n, mean + i, slope + i, center + i, step)
        else:
            differentiate(x + offset, dy + offset, target, n,
                          mean + i, slope + i, center + i, scale + i, step)
        if stream:
            stream_copy(out + offset, buffer, n * sizeof(real))
        elif not direct:
            memcpy(out + offset, buffer, n * sizeof(real))
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
        check_unit(p, tile, unit)
        offset = unit_offset(p, tile, unit)
        rows = unit_rows(p, unit)
        tail = unit_tail(p, unit)
        if p.span == width and p.row_stride == width:   # one channel, its rows side by side
            map_run(x, dy, out, offset, rows * width + tail,
                    mean, slope, center, scale, 0, p.map_ahead, stream)
            continue
        for _ in range(rows):
            map_run(x, dy, out, offset, width,
                    mean, slope, center, scale, 1, p.map_ahead, stream)
            offset += p.row_stride
        if tail:
            map_run(x, dy, out, offset, tail,
                    mean, slope, center, scale, 1, p.map_ahead, stream)
    if stream:
        stream_fence()
