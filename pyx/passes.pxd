# The two passes over a block of a tile: sums of what was read, and the elementwise map.

from libc.string cimport memcpy, memset

from call cimport Call, center_row, mean_row, partial, row, scale_row, slope_row
from plan cimport WIDTH, Plan, first_cell, first_channel, gather, spread, tile_width
from rows cimport (
    LANES, Coefficients, Factor, Mask, advanced, clear, differentiate, moved, normalize, real,
    sum_strip,
)

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


cdef inline Py_ssize_t unit_row(const Plan* p, Py_ssize_t unit) noexcept nogil:
    return unit % p.pieces * p.piece_rows


cdef inline Py_ssize_t unit_offset(const Plan* p, Py_ssize_t tile, Py_ssize_t unit) noexcept nogil:
    cdef Py_ssize_t sample = tile // p.sample_tiles
    return ((sample * p.shape.outer * p.shape.channels + first_channel(p, tile)) * p.shape.inner
            + unit // p.pieces * p.run_stride + unit_row(p, unit) * p.row_stride)


cdef inline Py_ssize_t unit_rows(const Plan* p, Py_ssize_t unit) noexcept nogil:
    return min(p.piece_rows, p.rows - unit_row(p, unit))


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


cdef inline void sum_any(
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t ahead, Factor of_u, Factor of_v, Mask mask, double* sum_u, double* sum_uv,
) noexcept nogil:
    """Sum a strip, by a loop for each kind of factors."""
    cdef Factor one = Factor(NULL, NULL, 0, 0)
    cdef Factor weights = Factor(NULL, of_u.weight, of_u.row_step, 1)
    cdef Factor shifts = Factor(of_v.shift, NULL, 0, 1)
    cdef Factor by_row = Factor(of_v.shift, of_v.weight, 1, 0)
    if of_v.weight != NULL:
        sum_strip(u, v, stride, rows, width, ahead, one, by_row, NULL, sum_u, sum_uv)
    elif of_u.weight != NULL:
        sum_strip(u, v, stride, rows, width, ahead, weights, shifts, NULL, sum_u, sum_uv)
    elif of_u.shift != NULL and mask == NULL:
        sum_strip(u, u, stride, rows, width, ahead, shifts, shifts, NULL, sum_u, sum_uv)
    elif of_u.shift != NULL:
        sum_strip(u, u, stride, rows, width, ahead, shifts, shifts, mask, sum_u, sum_uv)
    elif mask == NULL:
        sum_strip(u, v, stride, rows, width, ahead, one, shifts, NULL, sum_u, sum_uv)
    else:
        sum_strip(u, v, stride, rows, width, ahead, one, shifts, mask, sum_u, sum_uv)


cdef inline void sum_rows(
    const Call* call, Py_ssize_t offset, Py_ssize_t rows, Py_ssize_t width, Factor of_u,
    Factor of_v, double* sum_u, double* sum_uv, const real* storage,
) noexcept nogil:
    """Sum rows of any width, strip after strip."""
    cdef const real* u = <const real*>call.u + offset
    cdef const real* v = <const real*>call.v + offset
    cdef Mask mask = call.where + offset if call.where != NULL else NULL
    cdef Py_ssize_t stride = call.plan.row_stride
    cdef Py_ssize_t ahead = call.plan.sum_ahead
    cdef Py_ssize_t j = 0
    while j < width:
        if j + LANES <= width:
            sum_any(u + j, v + j, stride, rows, LANES, ahead, of_u, of_v, mask,
                    sum_u + j, sum_uv + j)
        else:
            sum_any(u + j, v + j, stride, rows, width - j, ahead, of_u, of_v, mask,
                    sum_u + j, sum_uv + j)
        of_u = moved(of_u, LANES * of_u.lane_step)
        of_v = moved(of_v, LANES * of_v.lane_step)
        if mask != NULL:
            mask += LANES
        j += LANES


cdef inline void sum_block(
    const Call* call, Py_ssize_t tile, Py_ssize_t block, const real* storage,
) noexcept nogil:
    """Per cell: the sum of the terms of u, and after that of their products with those of v."""
    cdef const Plan* p = &call.plan
    cdef double lanes[WIDTH]
    cdef double sum_u[WIDTH]
    cdef double sum_uv[WIDTH]
    cdef double* sums = partial(call, block)
    cdef Py_ssize_t width = tile_width(p, tile)
    cdef Py_ssize_t unit, offset, rows, tail
    cdef Factor row_u, row_v, of_u = call.of_u, of_v = call.of_v
    if not of_v.row_step:
        of_v.shift = spread(p, tile, of_v.shift, lanes)
    if of_u.shift != NULL:
        of_u.shift = of_v.shift
    memset(sum_u, 0, width * sizeof(double))
    memset(sum_uv, 0, width * sizeof(double))
    for unit in range(block * p.block_units, min((block + 1) * p.block_units, p.units)):
        check_unit(p, tile, unit)
        offset, rows, tail = unit_offset(p, tile, unit), unit_rows(p, unit), unit_tail(p, unit)
        row_u = moved(of_u, unit_row(p, unit) * of_u.row_step)
        row_v = moved(of_v, unit_row(p, unit) * of_v.row_step)
        sum_rows(call, offset, rows, width, row_u, row_v, sum_u, sum_uv, storage)
        if tail:
            sum_rows(call, offset + rows * p.row_stride, 1, tail,
                     moved(row_u, rows * of_u.row_step), row_v, sum_u, sum_uv, storage)
    gather(p, tile, sum_u, sums)
    gather(p, tile, sum_uv, sums + p.cells)


cdef inline void map_any(
    const real* x, const real* dy, real* out, Py_ssize_t length, Coefficients k,
) noexcept nogil:
    if dy == NULL:
        normalize(x, out, length, k)
    else:
        differentiate(x, dy, out, length, k)


cdef inline void map_values(
    const real* x, const real* dy, real* out, Py_ssize_t length, Coefficients k,
) noexcept nogil:
    """Map neighbouring values, by a loop for each kind of coefficients."""
    cdef Coefficients per_lane = Coefficients(k.mean, k.slope, k.center, k.scale, 1, NULL, NULL)
    cdef Coefficients one = Coefficients(k.mean, k.slope, k.center, k.scale, 0, NULL, NULL)
    if k.step:
        map_any(x, dy, out, length, per_lane)
    elif k.gamma == NULL:
        map_any(x, dy, out, length, one)
    else:
        k.step = 0
        map_any(x, dy, out, length, k)


cdef inline void map_run(
    const Call* call, Py_ssize_t offset, Py_ssize_t length, Coefficients k, const real* storage,
) noexcept nogil:
    """Map a run of neighbouring values, chunk by chunk."""
    cdef const real* x = <const real*>call.x
    cdef const real* dy = <const real*>call.dy
    cdef real* out = <real*>call.out
    cdef real buffer[ROW_CHUNK]
    cdef real* target = buffer
    cdef Py_ssize_t chunk = ROW_CHUNK if k.step else RUN_CHUNK
    cdef Py_ssize_t ahead = call.plan.map_ahead
    cdef Py_ssize_t n
    # In place, too, the map goes through the buffer: overlapping arrays would not be vectorized.
    cdef bint direct = not call.stream and out != x and out != dy
    while length > 0:
        # Every chunk but the first begins with a cache line of `out`.
        n = min(length, chunk - <Py_ssize_t>into_line(out + offset) // <Py_ssize_t>sizeof(real))
        prefetch(x + offset + ahead, n * sizeof(real))
        if dy != NULL:
            prefetch(dy + offset + ahead, n * sizeof(real))
        if direct:      # a line that is written to is read first
            target = out + offset
            prefetch(target + ahead, n * sizeof(real))
        map_values(x + offset, NULL if dy == NULL else dy + offset, target, n, k)
        if call.where != NULL:
            clear(target, n, call.where + offset)
        if call.stream:
            stream_copy(out + offset, buffer, n * sizeof(real))
        elif not direct:
            memcpy(out + offset, buffer, n * sizeof(real))
        offset += n
        length -= n
        k = advanced(k, n)


cdef inline void map_block(
    const Call* call, Py_ssize_t tile, Py_ssize_t block, const real* storage,
) noexcept nogil:
    """Map x (and dy, if not NULL) to out."""
    cdef const Plan* p = &call.plan
    cdef double lanes[4][WIDTH]
    cdef Py_ssize_t width = tile_width(p, tile)
    cdef Py_ssize_t unit, offset, rows, tail, i
    cdef const double* mean = row(call, mean_row) + first_cell(p, tile)
    cdef Coefficients of_cell = Coefficients(
        mean, mean + p.cells, mean + 2 * p.cells, mean + 3 * p.cells, 0, call.gamma, call.beta)
    cdef Coefficients of_lanes = of_cell
    cdef bint side_by_side = p.span == width and p.row_stride == width  # the rows of one cell
    if not side_by_side:
        of_lanes.step = 1
        of_lanes.mean = spread(p, tile, row(call, mean_row), lanes[0])
        of_lanes.slope = spread(p, tile, row(call, slope_row), lanes[1])
        of_lanes.center = spread(p, tile, row(call, center_row), lanes[2])
        if call.dy != NULL:
            of_lanes.scale = spread(p, tile, row(call, scale_row), lanes[3])
    for unit in range(block * p.block_units, min((block + 1) * p.block_units, p.units)):
        check_unit(p, tile, unit)
        offset, rows, tail = unit_offset(p, tile, unit), unit_rows(p, unit), unit_tail(p, unit)
        if side_by_side:
            map_run(call, offset, rows * width + tail,
                    advanced(of_cell, unit_row(p, unit) * width), storage)
            continue
        for i in range(rows):
            map_run(call, offset + i * p.row_stride, width, of_lanes, storage)
        if tail:
            map_run(call, offset + rows * p.row_stride, tail, of_lanes, storage)
