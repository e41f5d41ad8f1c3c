# The two passes over a block of a tile: sums of what was read, and the elementwise map.

from libc.string cimport memcpy, memset

from call cimport Call, center_row, mask_at, mean_row, partial, row, scale_row, slope_row
from plan cimport (
    WIDTH, Plan, first_cell, first_channel, gather, spread, tile_channels, tile_sample, tile_width,
    weigh,
)
from rows cimport (
    LANES, Coefficients, Factor, Mask, advanced, differentiate, moved, normalize, real, sum_strip,
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
    MASK_ROWS = 8           # rows of lanes whose mask is laid out at once


cdef inline Py_ssize_t unit_row(const Plan* p, Py_ssize_t unit) noexcept nogil:
    return unit % p.pieces * p.piece_rows


cdef inline Py_ssize_t unit_offset(const Plan* p, Py_ssize_t tile, Py_ssize_t unit) noexcept nogil:
    return ((tile_sample(p, tile) * p.outer * p.channels + first_channel(p, tile)) * p.inner
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


cdef inline void lay_mask(
    const Call* call, Py_ssize_t tile, Py_ssize_t row, Py_ssize_t width, unsigned char* lanes,
) noexcept nogil:
    """Give every lane of a row, of this width, the mask of its value."""
    cdef const Plan* p = &call.plan
    cdef Py_ssize_t channels = tile_channels(p, tile)
    cdef Py_ssize_t f, c, j
    cdef Mask mask
    for f in range(width // (channels * p.span)):
        mask = (call.where + first_channel(p, tile) * call.where_channel
                + (tile_sample(p, tile) * p.outer + row * p.fold + f) * call.where_outer)
        if p.span == 1 and not call.where_channel:
            memset(lanes, mask[0], channels)
            lanes += channels
            continue
        for c in range(channels):
            for j in range(p.span):
                lanes[j] = mask[j]
            lanes += p.span
            mask += call.where_channel


cdef inline void sum_any(
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t ahead, Factor of_u, Factor of_v, Mask mask, Py_ssize_t mask_stride,
    double* sum_u, double* sum_uv,
) noexcept nogil:
    """Sum a strip, by a loop for each kind of factors."""
    cdef Factor one = Factor(NULL, NULL, 0, 0)
    cdef Factor weights_u = Factor(NULL, of_u.weight, of_u.row_step, 1)
    cdef Factor shifts = Factor(of_v.shift, NULL, 0, 1)
    if of_v.weight != NULL:     # of the rows
        sum_strip(u, v, stride, rows, width, ahead, one,
                  Factor(of_v.shift, of_v.weight, 1, 0), NULL, 0, sum_u, sum_uv)
    elif of_u.weight != NULL:
        sum_strip(u, v, stride, rows, width, ahead, weights_u, shifts, NULL, 0, sum_u, sum_uv)
    elif of_u.shift != NULL and mask == NULL:
        sum_strip(u, u, stride, rows, width, ahead, shifts, shifts, NULL, 0, sum_u, sum_uv)
    elif of_u.shift != NULL:
        sum_strip(u, u, stride, rows, width, ahead, shifts, shifts, mask, mask_stride,
                  sum_u, sum_uv)
    elif mask == NULL:
        sum_strip(u, v, stride, rows, width, ahead, one, shifts, NULL, 0, sum_u, sum_uv)
    else:
        sum_strip(u, v, stride, rows, width, ahead, one, shifts, mask, mask_stride, sum_u, sum_uv)


cdef inline void sum_rows(
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t ahead, Factor of_u, Factor of_v, Mask mask, Py_ssize_t mask_stride,
    double* sum_u, double* sum_uv,
) noexcept nogil:
    """Sum rows of any width, strip after strip."""
    cdef Py_ssize_t j = 0
    while j < width:
        if j + LANES <= width:
            sum_any(u + j, v + j, stride, rows, LANES, ahead, of_u, of_v, mask, mask_stride,
                    sum_u + j, sum_uv + j)
        else:
            sum_any(u + j, v + j, stride, rows, width - j, ahead, of_u, of_v, mask, mask_stride,
                    sum_u + j, sum_uv + j)
        of_u = moved(of_u, LANES * of_u.lane_step)
        of_v = moved(of_v, LANES * of_v.lane_step)
        if mask != NULL:
            mask += LANES
        j += LANES


cdef inline void sum_piece(
    const Call* call, Py_ssize_t tile, Py_ssize_t unit, Py_ssize_t row, Py_ssize_t rows,
    Py_ssize_t width, Py_ssize_t offset, Factor of_u, Factor of_v, double* sum_u, double* sum_uv,
    const real* storage,
) noexcept nogil:
    """Sum rows from `row` on, which lie at `offset`, of a tile or of its tail."""
    cdef const Plan* p = &call.plan
    cdef const real* u = <const real*>call.u + offset
    cdef const real* v = <const real*>call.v + offset
    cdef unsigned char masks[MASK_ROWS * WIDTH]
    cdef Py_ssize_t n, i
    of_u = moved(of_u, row * of_u.row_step)
    of_v = moved(of_v, row * of_v.row_step)
    if call.where == NULL:
        sum_rows(u, v, p.row_stride, rows, width, p.sum_ahead, of_u, of_v, NULL, 0, sum_u, sum_uv)
    elif p.along:
        sum_rows(u, v, p.row_stride, rows, width, p.sum_ahead, of_u, of_v,
                 mask_at(call, tile, unit // p.pieces, row), p.row_stride, sum_u, sum_uv)
    else:
        while rows > 0:
            n = min(rows, MASK_ROWS)
            for i in range(n):
                lay_mask(call, tile, row + i, width, masks + i * width)
            sum_rows(u, v, p.row_stride, n, width, p.sum_ahead, of_u, of_v,
                     masks, width, sum_u, sum_uv)
            u += n * p.row_stride
            v += n * p.row_stride
            row += n
            rows -= n


cdef inline void sum_block(
    const Call* call, Py_ssize_t tile, Py_ssize_t block, const real* storage,
) noexcept nogil:
    """Per cell: the sum of the terms of u, and after that of their products with those of v."""
    cdef const Plan* p = &call.plan
    cdef double u_lanes[WIDTH]
    cdef double v_lanes[WIDTH]
    cdef double sum_u[WIDTH]
    cdef double sum_uv[WIDTH]
    cdef double* sums = partial(call, block)
    cdef Py_ssize_t width = tile_width(p, tile)
    cdef Py_ssize_t unit, offset, row, rows, tail
    cdef Factor of_u = call.of_u
    cdef Factor of_v = call.of_v
    if not of_v.row_step:
        of_v.shift = spread(p, tile, of_v.shift, v_lanes)
    if of_u.shift != NULL:
        of_u.shift = of_v.shift
    if of_u.weight != NULL and not of_u.row_step:
        of_u.weight = weigh(p, tile, NULL, of_u.weight, u_lanes)
    memset(sum_u, 0, width * sizeof(double))
    memset(sum_uv, 0, width * sizeof(double))
    for unit in range(block * p.block_units, min((block + 1) * p.block_units, p.units)):
        check_unit(p, tile, unit)
        offset = unit_offset(p, tile, unit)
        row, rows, tail = unit_row(p, unit), unit_rows(p, unit), unit_tail(p, unit)
        sum_piece(call, tile, unit, row, rows, width, offset, of_u, of_v, sum_u, sum_uv, storage)
        if tail:
            sum_piece(call, tile, unit, row + rows, 1, tail, offset + rows * p.row_stride,
                      of_u, of_v, sum_u, sum_uv, storage)
    gather(p, tile, sum_u, sums)
    gather(p, tile, sum_uv, sums + p.cells)


cdef inline void map_any(
    const real* x, const real* dy, real* out, Py_ssize_t length, Coefficients k, Mask mask,
) noexcept nogil:
    """Map by normalize or, with dy, by differentiate."""
    if dy == NULL:
        normalize(x, out, length, k, mask)
    else:
        differentiate(x, dy, out, length, k, mask)


cdef inline void map_values(
    const real* x, const real* dy, real* out, Py_ssize_t length, Coefficients k, Mask mask,
) noexcept nogil:
    """Map neighbouring values, by a loop for each kind of coefficients."""
    cdef Coefficients per_lane = Coefficients(k.mean, k.slope, k.center, k.scale, 1, NULL, NULL)
    cdef Coefficients one = Coefficients(k.mean, k.slope, k.center, k.scale, 0, NULL, NULL)
    cdef Coefficients weighted = k
    weighted.step = 0
    if k.gamma != NULL:
        map_any(x, dy, out, length, weighted, NULL)
    elif k.step and mask == NULL:
        map_any(x, dy, out, length, per_lane, NULL)
    elif k.step:
        map_any(x, dy, out, length, per_lane, mask)
    elif mask == NULL:
        map_any(x, dy, out, length, one, NULL)
    else:
        map_any(x, dy, out, length, one, mask)


cdef inline void map_run(
    const Call* call, Py_ssize_t offset, Py_ssize_t length, Coefficients k, Mask mask,
    const real* storage,
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
        if direct:
            target = out + offset
        map_values(x + offset, NULL if dy == NULL else dy + offset, target, n, k, mask)
        if call.stream:
            stream_copy(out + offset, buffer, n * sizeof(real))
        elif not direct:
            memcpy(out + offset, buffer, n * sizeof(real))
        offset += n
        length -= n
        k = advanced(k, n)
        if mask != NULL:
            mask += n


cdef inline Coefficients map_coefficients(
    const Call* call, Py_ssize_t tile, bint side_by_side, double[4][WIDTH] lanes,
) noexcept nogil:
    """What every lane of a tile is mapped with."""
    cdef const Plan* p = &call.plan
    cdef Py_ssize_t cell = first_cell(p, tile)
    cdef Coefficients k
    if side_by_side:
        return Coefficients(
            row(call, mean_row) + cell, row(call, slope_row) + cell, row(call, center_row) + cell,
            row(call, scale_row) + cell, 0, call.gamma, call.beta)
    k.mean = spread(p, tile, row(call, mean_row), lanes[0])
    k.slope = spread(p, tile, row(call, slope_row), lanes[1])
    k.center = spread(p, tile, row(call, center_row), lanes[2])
    k.scale = spread(p, tile, row(call, scale_row), lanes[3]) if call.dy != NULL else k.mean
    k.step = 1
    k.gamma = k.beta = NULL
    if call.gamma != NULL and call.dy == NULL:
        k.slope = weigh(p, tile, k.slope, call.gamma, lanes[1])
        k.center = weigh(p, tile, NULL, call.beta, lanes[2])
    elif call.gamma != NULL:
        k.scale = weigh(p, tile, k.scale, call.gamma, lanes[3])
    return k


cdef inline void map_block(
    const Call* call, Py_ssize_t tile, Py_ssize_t block, const real* storage,
) noexcept nogil:
    """Map x (and dy, if not NULL) to out."""
    cdef const Plan* p = &call.plan
    cdef double lanes[4][WIDTH]
    cdef unsigned char masks[WIDTH]
    cdef Mask mask = NULL
    cdef Py_ssize_t width = tile_width(p, tile)
    cdef Py_ssize_t unit, offset, row, rows, tail, i, n
    cdef bint side_by_side = p.span == width and p.row_stride == width  # the rows of one cell
    cdef Coefficients k = map_coefficients(call, tile, side_by_side, lanes)
    for unit in range(block * p.block_units, min((block + 1) * p.block_units, p.units)):
        check_unit(p, tile, unit)
        offset = unit_offset(p, tile, unit)
        row, rows, tail = unit_row(p, unit), unit_rows(p, unit), unit_tail(p, unit)
        if side_by_side:
            if call.where != NULL:
                mask = mask_at(call, tile, unit // p.pieces, row)
            map_run(call, offset, rows * width + tail, advanced(k, row * width), mask, storage)
            continue
        for i in range(rows + (tail > 0)):
            n = width if i < rows else tail
            if call.where != NULL:
                lay_mask(call, tile, row + i, n, masks)
                mask = masks
            map_run(call, offset, n, k, mask, storage)
            offset += p.row_stride
    if call.stream:
        stream_fence()
