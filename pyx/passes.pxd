# The two passes over a block of a tile: sums of what was read, and the elementwise map.

from libc.string cimport memset

from call cimport (
    Call, center_row, inner_row, invstd_row, mean_row, partial, row, scale_row, slope_row,
)
from plan cimport WIDTH, Plan, Tile, Unit, gather, spread, tile_at, unit_at
from rows cimport (
    LANES, LINE, STRIP, Coefficients, Mask, Terms, advanced, below, beside, clear, differentiate,
    halve, narrow, normalize, on_line, prefetch, real, sum_strip, to_line, widen,
)

cdef extern from "cache.h" nogil:
    void stream_copy(void* to, const void* source, size_t size) noexcept
    void stream_fence() noexcept


cdef inline Py_ssize_t sum_stretch(
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t j,
    Py_ssize_t stop, Py_ssize_t n, Py_ssize_t ahead, Terms t, Mask mask, double* sum_u,
    double* sum_uv,
) noexcept nogil:
    """Sum from lane j on in strips of n lanes, as far as they go; return where the rest begins."""
    while j + n <= stop:
        sum_strip(u + j, v + j if v != NULL else NULL, stride, rows, n, ahead, beside(t, j),
                  mask + j if mask != NULL else NULL, sum_u + j, sum_uv + j)
        j += n
    return j


cdef inline void sum_strips(
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t depth,
    Py_ssize_t width, Py_ssize_t ahead, Terms t, Mask mask, double* sum_u, double* sum_uv,
) noexcept nogil:
    """Sum rows, `depth` of them at once, in strips of fixed lengths, as vectors are."""
    cdef Py_ssize_t j, n
    while rows:
        n, j = min(rows, depth), 0
        j = sum_stretch(u, v, stride, n, j, width, STRIP, ahead, t, mask, sum_u, sum_uv)
        j = sum_stretch(u, v, stride, n, j, width, 8, ahead, t, mask, sum_u, sum_uv)
        j = sum_stretch(u, v, stride, n, j, width, 1, 0, t, mask, sum_u, sum_uv)
        rows -= n
        n *= stride
        t = below(t, n)
        u += n
        if v != NULL:
            v += n
        if mask != NULL:
            mask += n


cdef inline void sum_rows(
    const Call* call, Py_ssize_t offset, Py_ssize_t rows, Py_ssize_t width, Terms t,
    double* sum_u, double* sum_uv, const real* storage,
) noexcept nogil:
    """Sum rows of any width, by a loop for each kind of call."""
    cdef const real* u = <const real*>call.u + offset
    cdef const real* v = <const real*>call.v + offset if call.v != NULL else NULL
    cdef Mask mask = call.where + offset if call.where != NULL else NULL
    cdef Py_ssize_t stride = call.plan.row_stride
    cdef Py_ssize_t depth = call.plan.depth, ahead = call.plan.sum_ahead
    cdef Terms shifted = Terms(t.shift, NULL, NULL, NULL, 0)
    cdef Terms weighted = Terms(t.shift, t.weight, NULL, NULL, 0)
    if v == NULL and mask == NULL:
        sum_strips(u, NULL, stride, rows, depth, width, ahead, shifted, NULL, sum_u, sum_uv)
    elif v == NULL:
        sum_strips(u, NULL, stride, rows, depth, width, ahead, shifted, mask, sum_u, sum_uv)
    elif mask != NULL:
        sum_strips(u, v, stride, rows, depth, width, ahead, shifted, mask, sum_u, sum_uv)
    elif t.column_u != NULL:
        sum_strips(u, v, stride, rows, depth, width, ahead, t, NULL, sum_u, sum_uv)
    elif t.weight != NULL:
        sum_strips(u, v, stride, rows, depth, width, ahead, weighted, NULL, sum_u, sum_uv)
    else:
        sum_strips(u, v, stride, rows, depth, width, ahead, shifted, NULL, sum_u, sum_uv)


cdef inline void clear_columns(Terms t, const Unit* unit) noexcept nogil:
    memset(t.column_u, 0, (unit.rows * LANES + unit.tail) * sizeof(double))
    memset(t.column_uv, 0, (unit.rows * LANES + unit.tail) * sizeof(double))


cdef inline void sum_units(
    const Call* call, const Tile* tile, Py_ssize_t block, Py_ssize_t width, Terms t, bint fresh,
    double* sum_u, double* sum_uv, const real* storage,
) noexcept nogil:
    """Sum a block of rows of so many lanes. The columns are `fresh` in a part's first tile."""
    cdef const Plan* p = &call.plan
    cdef Unit unit
    cdef Terms here
    cdef Py_ssize_t i
    for i in range(block * p.block_units, min((block + 1) * p.block_units, p.units)):
        unit = unit_at(p, tile, i)
        here = below(t, unit.first_row * p.row_stride)
        if here.column_u != NULL and fresh:
            clear_columns(here, &unit)
        sum_rows(call, unit.offset, unit.rows, width, here, sum_u, sum_uv, storage)
        if unit.tail:
            sum_rows(call, unit.offset + unit.rows * p.row_stride, 1, unit.tail,
                     below(here, unit.rows * p.row_stride), sum_u, sum_uv, storage)


cdef inline void sum_along(
    const Call* call, Py_ssize_t cell, Py_ssize_t block, double* sums, const real* storage,
) noexcept nogil:
    cdef const Plan* p = &call.plan
    cdef double lanes[LANES]
    cdef double sum_u[LANES]
    cdef double sum_uv[LANES]
    cdef Tile tile = tile_at(p, cell)
    cdef Py_ssize_t j, part = 0
    cdef Terms t = Terms(&lanes[0], call.gamma, NULL, NULL, 0)
    for j in range(LANES):
        lanes[j], sum_u[j], sum_uv[j] = call.shift[cell], 0, 0
    if call.columns:
        part = cell // p.part_tiles
        t.column_u, t.column_uv = inner_row(call, 2 + 2 * part), inner_row(call, 3 + 2 * part)
        t.column_weight = call.forward_work[invstd_row * p.cells + cell]
    sum_units(call, &tile, block, LANES, t, cell == part * p.part_tiles, sum_u, sum_uv, storage)
    halve(sum_u, LANES, 1)
    halve(sum_uv, LANES, 1)
    sums[cell] = sum_u[0]
    sums[p.cells + cell] = sum_uv[0]


cdef inline void sum_across(
    const Call* call, Py_ssize_t tile_index, Py_ssize_t block, double* sums, const real* storage,
) noexcept nogil:
    cdef const Plan* p = &call.plan
    cdef double lanes[WIDTH]
    cdef double sum_u[WIDTH]
    cdef double sum_uv[WIDTH]
    cdef Tile tile = tile_at(p, tile_index)
    cdef Terms t = Terms(spread(p, &tile, call.shift, lanes), NULL, NULL, NULL, 0)
    memset(sum_u, 0, tile.width * sizeof(double))
    memset(sum_uv, 0, tile.width * sizeof(double))
    sum_units(call, &tile, block, tile.width, t, False, sum_u, sum_uv, storage)
    gather(p, &tile, sum_u, sums)
    gather(p, &tile, sum_uv, sums + p.cells)


cdef inline void sum_block(
    const Call* call, Py_ssize_t tile_index, Py_ssize_t block, const real* storage,
) noexcept nogil:
    """Per cell: the sum of the terms of u, and after that of their products with those of v."""
    if call.plan.along:     # a tile is a cell
        sum_along(call, tile_index, block, partial(call, block), storage)
    else:
        sum_across(call, tile_index, block, partial(call, block), storage)


cdef inline void map_strip(
    const real* x, const real* dy, real* out, Py_ssize_t n, Coefficients k, Mask mask, bint stream,
) noexcept nogil:
    """Map up to STRIP values. All are read before one is written: `out` may be x or dy."""
    cdef double values[STRIP]
    cdef double wide_dy[STRIP]
    widen(x, values, n)
    if dy == NULL:
        normalize(values, n, k)
    else:
        widen(dy, wide_dy, n)
        differentiate(values, wide_dy, n, k)
    if mask != NULL:
        clear(values, n, mask)
    narrow(values, out, n, stream)


cdef inline Py_ssize_t map_stretch(
    const real* x, const real* dy, real* out, Py_ssize_t j, Py_ssize_t stop, Py_ssize_t n,
    Py_ssize_t ahead, Py_ssize_t out_ahead, Coefficients k, Mask mask, bint stream,
) noexcept nogil:
    """Map from j on in strips of n values, as far as they go; return where the rest begins."""
    while j + n <= stop:
        if ahead:
            prefetch(x + j + ahead, n * sizeof(real))
        if ahead and dy != NULL:
            prefetch(dy + j + ahead, n * sizeof(real))
        if out_ahead:       # a line that is written to is read first
            prefetch(out + j + out_ahead, n * sizeof(real))
        map_strip(x + j, dy + j if dy != NULL else NULL, out + j, n, advanced(k, j),
                  mask + j if mask != NULL else NULL, stream)
        j += n
    return j


cdef inline void map_strips(
    const real* x, const real* dy, real* out, Py_ssize_t length, Py_ssize_t ahead,
    Py_ssize_t out_ahead, Coefficients k, Mask mask, bint stream,
) noexcept nogil:
    """Map neighbouring values, in strips of fixed lengths, as vectors are."""
    cdef Py_ssize_t j = 0
    # Streamed strips begin a line: what lies before the first one is stored as usual.
    cdef Py_ssize_t stop = min(to_line(out) // sizeof(real), length) if stream else 0
    cdef double mean = k.mean[0], slope = k.slope[0], center = k.center[0]
    cdef double scale = 0 if dy == NULL else k.scale[0]
    if not k.step:      # in registers
        k.mean, k.slope, k.center, k.scale = &mean, &slope, &center, &scale
    while True:
        j = map_stretch(x, dy, out, j, stop, 8, 0, 0, k, mask, False)
        j = map_stretch(x, dy, out, j, stop, 1, 0, 0, k, mask, False)
        if j == length:
            return
        j = map_stretch(x, dy, out, j, length, STRIP, ahead, out_ahead, k, mask, stream)
        stop = length


cdef inline void map_rows(
    const real* x, const real* dy, real* out, Py_ssize_t stride, Py_ssize_t rows,
    Py_ssize_t length, Py_ssize_t ahead, Coefficients k, Mask mask, bint stream,
) noexcept nogil:
    cdef real buffer[WIDTH]
    cdef Py_ssize_t _
    for _ in range(rows):
        if stream and k.step:       # a row at once: to read and write in turns takes longer
            map_strips(x, dy, <real*>buffer, length, ahead, 0, k, mask, False)
            stream_copy(out, buffer, length * sizeof(real))
        else:
            map_strips(x, dy, out, length, ahead, 0 if stream else ahead, k, mask, stream)
        x += stride
        out += stride
        if dy != NULL:
            dy += stride
        if mask != NULL:
            mask += stride


cdef inline void map_any(
    const Call* call, Py_ssize_t offset, Py_ssize_t rows, Py_ssize_t length, Coefficients k,
    const real* storage,
) noexcept nogil:
    """Map rows of neighbouring values, by a loop for each kind of call."""
    cdef const real* x = <const real*>call.x + offset
    cdef const real* dy = <const real*>call.dy + offset if call.dy != NULL else NULL
    cdef real* out = <real*>call.out + offset
    cdef Mask mask = call.where + offset if call.where != NULL else NULL
    cdef Py_ssize_t stride = call.plan.row_stride
    cdef Py_ssize_t ahead = call.plan.map_ahead
    if mask != NULL:
        map_rows(x, dy, out, stride, rows, length, ahead, k, mask, call.stream)
    elif dy == NULL and call.stream:
        map_rows(x, NULL, out, stride, rows, length, ahead, k, NULL, True)
    elif dy == NULL:
        map_rows(x, NULL, out, stride, rows, length, ahead, k, NULL, False)
    elif call.stream:
        map_rows(x, dy, out, stride, rows, length, ahead, k, NULL, True)
    else:
        map_rows(x, dy, out, stride, rows, length, ahead, k, NULL, False)


cdef inline void map_cell(
    const Call* call, Py_ssize_t offset, Py_ssize_t length, Coefficients k, const real* storage,
) noexcept nogil:
    """Map neighbouring values of one cell."""
    cdef Coefficients one = Coefficients(k.mean, k.slope, k.center, k.scale, 0, NULL, NULL)
    if k.gamma == NULL:
        map_any(call, offset, 1, length, one, storage)
    else:
        map_any(call, offset, 1, length, k, storage)


cdef inline void map_lanes(
    const Call* call, Py_ssize_t offset, Py_ssize_t rows, Py_ssize_t length, const double* lanes,
    const real* storage,
) noexcept nogil:
    """Map rows whose lanes have coefficients of their own."""
    # At known distances, so that one register holds the address of all.
    map_any(call, offset, rows, length, Coefficients(
        lanes, lanes + WIDTH, lanes + 2 * WIDTH, lanes + 3 * WIDTH, 1, NULL, NULL), storage)


cdef inline void map_block(
    const Call* call, Py_ssize_t tile_index, Py_ssize_t block, const real* storage,
) noexcept nogil:
    """Map x (and dy, if not NULL) to out."""
    cdef const Plan* p = &call.plan
    cdef double space[4 * WIDTH + LINE]
    cdef double* lanes = on_line(space)
    cdef Tile tile = tile_at(p, tile_index)
    cdef Unit unit
    cdef Py_ssize_t i, lane
    # Four coefficients for each lane of the widest rows would fill the first-level cache.
    cdef Py_ssize_t step = WIDTH // 2 if call.dy != NULL and tile.width > WIDTH * 7 // 8 else WIDTH
    cdef const double* mean = row(call, mean_row) + tile.first_cell
    cdef Coefficients of_cell = Coefficients(
        mean, mean + p.cells, mean + 2 * p.cells, mean + 3 * p.cells, 0, call.gamma, call.beta)
    cdef bint side_by_side = p.span == tile.width == p.row_stride  # the rows of one cell
    if not side_by_side:
        spread(p, &tile, row(call, mean_row), lanes + 0 * WIDTH)
        spread(p, &tile, row(call, slope_row), lanes + 1 * WIDTH)
        spread(p, &tile, row(call, center_row), lanes + 2 * WIDTH)
        if call.dy != NULL:
            spread(p, &tile, row(call, scale_row), lanes + 3 * WIDTH)
    for i in range(block * p.block_units, min((block + 1) * p.block_units, p.units)):
        unit = unit_at(p, &tile, i)
        if side_by_side:
            map_cell(call, unit.offset, unit.rows * tile.width + unit.tail,
                     advanced(of_cell, unit.first_row * tile.width), storage)
            continue
        lane = 0
        while lane < tile.width:
            map_lanes(call, unit.offset + lane, unit.rows, min(step, tile.width - lane),
                      lanes + lane, storage)
            lane += step
        if unit.tail:
            map_lanes(call, unit.offset + unit.rows * p.row_stride, 1, unit.tail, lanes, storage)
