# The first phase over a block of a tile: sums of what is read.

from libc.string cimport memcpy, memset

from call cimport (
    Call, Pass, beta_row, inner_row, invstd_row, partial, saved, slope_row,
)
from plan cimport (
    APART, BANDS, DEPTH, Band, Plan, Tile, Unit, ceil_div, cut, gather, lanes_from, skew_of, spread,
    tile_at, unit_at,
)
from rows cimport (
    ADDED, CLIPPED, LANES, STRIP, Fused, Mask, Terms, add_next, below, beside, halve, not_null,
    real, sum_strip, thread_lanes,
)


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
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t ahead, Terms t, Mask mask, double* sum_u, double* sum_uv,
) noexcept nogil:
    """Sum rows in strips of fixed lengths, as vectors are."""
    cdef Py_ssize_t j = 0
    j = sum_stretch(u, v, stride, rows, j, width, STRIP, ahead, t, mask, sum_u, sum_uv)
    j = sum_stretch(u, v, stride, rows, j, width, 8, ahead, t, mask, sum_u, sum_uv)
    sum_stretch(u, v, stride, rows, j, width, 1, 0, t, mask, sum_u, sum_uv)


cdef enum:              # what is summed: a constant in each loop
    PRODUCTS = 1        # of u and v, not squares of u
    WEIGHTED = 2
    COLUMNS = 4
    MASKED = 8
    FUSED = 16          # u comes through what followed the norm; and then times 32, how
    HOW = 32


cdef inline void sum_band(
    const Call* call, const real* u, const Band* band, Py_ssize_t rows, Py_ssize_t width, int kind,
    Terms t, double* sum_u, double* sum_uv,
) noexcept nogil:
    """Sum a band of so many rows and lanes: where they are constants the caller says so."""
    cdef const real* v = NULL
    cdef Mask mask = NULL
    if kind & PRODUCTS:
        v = <const real*>not_null(<const real*>call.v + band.offset)
    if kind & MASKED:
        mask = <Mask>not_null(call.where + band.offset)
    if kind & FUSED:
        t.fused, t.how = <const Fused*>not_null(call.fused), kind // HOW
    sum_strips(u + band.offset, v, call.plan.row_stride, rows, width, call.plan.sum_ahead, t,
               mask, sum_u, sum_uv)


cdef inline void clear_columns(const Terms* t, const Unit* unit) noexcept nogil:
    memset(t.column_u, 0, (unit.rows * LANES + unit.tail) * sizeof(double))
    memset(t.column_uv, 0, (unit.rows * LANES + unit.tail) * sizeof(double))


cdef inline Terms terms_of_cell(
    const Call* call, Py_ssize_t cell, int kind, const double* lanes,
) noexcept nogil:
    cdef Terms t = Terms(lanes, NULL, NULL, NULL, 0, NULL, 0, lanes + LANES, lanes + 2 * LANES)
    cdef Py_ssize_t part
    if kind & WEIGHTED:
        t.weight = <const double*>not_null(call.gamma)
    if kind & COLUMNS:
        part = cell // call.plan.part_tiles
        t.column_u = <double*>not_null(inner_row(call, 2 + 2 * part))
        t.column_uv = <double*>not_null(inner_row(call, 3 + 2 * part))
        t.column_weight = saved(call, invstd_row)[cell]
    return t


cdef inline void fill_lanes(double* lanes, double value) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(LANES):
        lanes[j] = value


cdef inline void put_aside(double* sums, bint more) noexcept nogil:
    """Keep the sums of a section behind them, added to others if there are, and begin anew."""
    cdef Py_ssize_t j
    for j in range(LANES):
        sums[LANES + j] = sums[LANES + j] + sums[j] if more else sums[j]
        sums[j] = 0


cdef inline void sum_along(
    const Call* call, const real* u, Py_ssize_t cell, Py_ssize_t block, int kind, double* sums,
) noexcept nogil:
    cdef const Plan* p = &call.plan
    cdef double lanes[3 * LANES]            # shift; slope and beta
    cdef double sum_u[2 * LANES]            # of a section; then of those before it
    cdef double sum_uv[2 * LANES]
    cdef Tile tile = tile_at(p, cell)
    cdef Terms t = terms_of_cell(call, cell, kind, lanes)
    cdef Terms here
    cdef Unit unit
    cdef Band band
    cdef bint fresh = kind & COLUMNS and cell % p.part_tiles == 0
    cdef Py_ssize_t first = block * p.block_units
    cdef Py_ssize_t stop = min(first + p.block_units, p.units)
    cdef Py_ssize_t i, section = 0
    fill_lanes(lanes, call.shift[cell])
    if kind & FUSED:
        fill_lanes(lanes + LANES, saved(call, slope_row)[cell])
        fill_lanes(lanes + 2 * LANES, saved(call, beta_row)[cell])
    memset(sum_u, 0, LANES * sizeof(double))
    memset(sum_uv, 0, LANES * sizeof(double))
    for section in range(ceil_div(stop - first, p.section_units)):
        if section:
            put_aside(sum_u, section > 1)
            put_aside(sum_uv, section > 1)
        for i in range(first, min(stop, first + p.section_units)):
            unit = unit_at(p, &tile, i)
            here = below(t, unit.first_row * LANES)
            if fresh:
                clear_columns(&here, &unit)
            if unit.rows:
                band = Band(unit.offset, unit.rows, 0, LANES)
                sum_band(call, u, &band, band.rows, LANES, kind, here, sum_u, sum_uv)
            if unit.tail:
                band = Band(unit.offset + unit.rows * LANES, 1, 0, unit.tail)
                here = below(here, unit.rows * LANES)
                sum_band(call, u, &band, 1, band.width, kind, here, sum_u, sum_uv)
        first += p.section_units
    if section:
        add_next(sum_u, LANES, LANES)
        add_next(sum_uv, LANES, LANES)
    halve(sum_u, LANES, 1)
    halve(sum_uv, LANES, 1)
    sums[cell] = sum_u[0]
    sums[p.cells + cell] = sum_uv[0]


cdef inline void sum_down(
    const Call* call, const real* u, const Band* band, Py_ssize_t depth, int kind, Terms t,
    double* sum_u, double* sum_uv,
) noexcept nogil:
    """Sum a band by strips that go down `depth` rows."""
    cdef Band part = band[0]
    cdef Py_ssize_t rest = band.rows % depth
    cdef Py_ssize_t _
    for _ in range(band.rows // depth):
        sum_band(call, u, &part, depth, part.width, kind, t, sum_u, sum_uv)
        part.offset += depth * call.plan.row_stride
    if rest:
        sum_band(call, u, &part, rest, part.width, kind, t, sum_u, sum_uv)


cdef inline void sum_section(
    const Call* call, const real* u, const Tile* tile, Py_ssize_t first, Py_ssize_t stop,
    Py_ssize_t skew, int kind, double* lanes,
) noexcept nogil:
    """Sum units of a tile, of which there are the shifts, to the lanes behind these."""
    cdef const Plan* p = &call.plan
    cdef bint end_to_end = tile.width == p.row_stride
    cdef double* sum_u = lanes + APART
    cdef double* sum_uv = lanes + 2 * APART
    cdef Terms t = Terms(NULL, NULL, NULL, NULL, 0, NULL, 0, NULL, NULL)
    cdef Unit unit
    cdef Band bands[BANDS]
    cdef const Band* band
    cdef Py_ssize_t i, n, lane
    memset(sum_u, 0, (tile.width + skew) * sizeof(double))
    memset(sum_uv, 0, (tile.width + skew) * sizeof(double))
    for i in range(first, stop):
        unit = unit_at(p, tile, i)
        for n in range(cut(p, tile, &unit, skew, skew if end_to_end else 0,
                           1 if end_to_end else unit.rows, True, bands)):
            band = &bands[n]
            # The first lanes are summed behind the last ones.
            lane = band.lane if band.lane >= skew else tile.width
            t.shift = lanes + band.lane
            t.slope, t.beta = t.shift + 3 * APART, t.shift + 4 * APART
            if kind & PRODUCTS:
                sum_down(call, u, band, band.rows if p.small else 1, kind, t,
                         sum_u + lane, sum_uv + lane)
            else:
                sum_down(call, u, band, DEPTH, kind, t, sum_u + lane, sum_uv + lane)
    memcpy(sum_u, sum_u + tile.width, skew * sizeof(double))
    memcpy(sum_uv, sum_uv + tile.width, skew * sizeof(double))


cdef inline void sum_across(
    const Call* call, const real* u, Py_ssize_t tile_index, Py_ssize_t block, int kind,
    double* sums,
) noexcept nogil:
    cdef const Plan* p = &call.plan
    cdef Tile tile = tile_at(p, tile_index)
    cdef Py_ssize_t skew = skew_of(p, tile.offset, u, sizeof(real))
    cdef double* lanes = lanes_from(thread_lanes(), skew)
    cdef Py_ssize_t first = block * p.block_units
    cdef Py_ssize_t stop = min(first + p.block_units, p.units)
    cdef Py_ssize_t section
    spread(p, &tile, call.shift, lanes, False)
    if kind & FUSED:
        spread(p, &tile, saved(call, slope_row), lanes + 3 * APART, False)
        spread(p, &tile, saved(call, beta_row), lanes + 4 * APART, False)
    for section in range(ceil_div(stop - first, p.section_units)):
        sum_section(call, u, &tile, first, min(stop, first + p.section_units), skew, kind, lanes)
        gather(p, &tile, lanes + APART, sums, section > 0)
        gather(p, &tile, lanes + 2 * APART, sums + p.cells, section > 0)
        first += p.section_units


cdef inline void sum_block(
    const Call* call, const real* u, Py_ssize_t tile, Py_ssize_t block, int kind,
) noexcept nogil:
    """Per cell: the sum of the terms of u, and after that of their products with those of v."""
    if call.plan.along:     # a tile is a cell
        sum_along(call, u, tile, block, kind, partial(call, block))
    else:
        sum_across(call, u, tile, block, kind, partial(call, block))


# A loop for each kind of call. Each is a function of its own, called by address: in one function
# for all the compiler runs out of registers for what does not change while a loop runs.

cdef inline void sum_squares(
    const Call* call, const real* u, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    sum_block(call, u, tile, block, 0)


cdef inline void sum_products(
    const Call* call, const real* u, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    sum_block(call, u, tile, block, PRODUCTS)


cdef inline void sum_weighted(
    const Call* call, const real* u, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    sum_along(call, u, tile, block, PRODUCTS | WEIGHTED, partial(call, block))


cdef inline void sum_columns(
    const Call* call, const real* u, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    sum_along(call, u, tile, block, PRODUCTS | WEIGHTED | COLUMNS, partial(call, block))


cdef inline void sum_masked(
    const Call* call, const real* u, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    if call.v == NULL:
        sum_block(call, u, tile, block, MASKED)
    else:
        sum_block(call, u, tile, block, MASKED | PRODUCTS)


cdef inline void sum_fused(
    const Call* call, const real* u, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    if call.where == NULL:
        sum_block(call, u, tile, block, PRODUCTS | FUSED)
    else:
        sum_block(call, u, tile, block, PRODUCTS | FUSED | MASKED)


cdef inline void sum_clipped(
    const Call* call, const real* u, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    sum_block(call, u, tile, block, PRODUCTS | FUSED | CLIPPED * HOW)


cdef inline void sum_added(
    const Call* call, const real* u, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    sum_block(call, u, tile, block, PRODUCTS | FUSED | ADDED * HOW)


cdef inline Pass sum_pass(const Call* call, const real* u) noexcept nogil:
    if call.v != NULL and call.fused != NULL and call.fused.activation != NULL:
        if call.how == CLIPPED:
            return <Pass>sum_clipped[real]
        return <Pass>sum_added[real] if call.how == ADDED else <Pass>sum_fused[real]
    if call.where != NULL:
        return <Pass>sum_masked[real]
    if call.v == NULL:
        return <Pass>sum_squares[real]
    if call.columns:
        return <Pass>sum_columns[real]
    if call.gamma != NULL:
        return <Pass>sum_weighted[real]
    return <Pass>sum_products[real]
