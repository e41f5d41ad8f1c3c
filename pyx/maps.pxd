# The second phase over a block of a tile: the elementwise map.

from call cimport Call, Pass
from plan cimport (
    APART, BANDS, MARGIN, WIDTH, Band, Plan, Tile, Unit, cut, lanes_from, skew_of, spread,
    tile_at, unit_at,
)
from rows cimport (
    ADDED, CLIPPED, LINE, STRIP, VECTOR, Coefficients, Fused, Mask, advanced, clear, differentiate,
    finish, give_residual, go_back, narrow, normalize, not_null, prefetch, prefetch_beside, real,
    scale, thread_lanes, to_line, widen,
)

cdef extern from "cache.h" nogil:
    void stream_fence() noexcept


cdef inline void go_back_to_norm(
    const real* x, real* out, const double* values, double* g, Py_ssize_t n, Coefficients k,
    Mask mask, const Fused* fused, int how, bint stream,
) noexcept nogil:
    """Make of the loss's gradient with respect to y that of the norm; it is the residual's, too."""
    cdef Py_ssize_t place = out - <real*>fused.out
    go_back(x, values, g, n, fused, how, place, k.first, k.first + 3 * k.apart,
            k.first + 4 * k.apart, k.step)
    if how == CLIPPED or fused.dresidual == NULL:
        return
    if mask != NULL:
        clear(g, n, mask)
    give_residual(x, g, n, fused, place, stream and fused.dresidual_streams)


cdef inline void map_vector(
    const real* x, const real* dy, real* out, Py_ssize_t n, Coefficients k, Mask mask,
    const Fused* fused, int how, bint stream,
) noexcept nogil:
    """Map up to STRIP values. All are read before one is written: `out` may be x or dy."""
    cdef double values[STRIP]
    cdef double wide_dy[STRIP]
    widen(x, values, n)
    if dy != NULL:
        widen(dy, wide_dy, n)
        if fused != NULL:
            go_back_to_norm(x, out, values, wide_dy, n, k, mask, fused, how, stream)
    if dy == NULL:
        normalize(values, n, k)
        if fused != NULL:
            finish(x, values, n, fused, how, out - <real*>fused.out)
    elif fused == NULL or fused.training:
        differentiate(values, wide_dy, n, k)
    else:
        scale(values, wide_dy, n, k)
    if mask != NULL:
        clear(values, n, mask)
    narrow(values, out, n, stream)


cdef inline void prefetch_third(
    const real* x, const Fused* fused, Py_ssize_t place, Py_ssize_t n,
) noexcept nogil:
    """What is read, and written, beside x and out."""
    if fused.third != NULL:
        prefetch_beside(x, fused.third, fused.third_is_float, place, n)
    if fused.dresidual != NULL and not fused.dresidual_streams:
        prefetch_beside(x, fused.dresidual, fused.dresidual_is_float, place, n)


cdef inline Py_ssize_t map_stretch(
    const real* x, const real* dy, real* out, Py_ssize_t j, Py_ssize_t stop, Py_ssize_t n,
    Py_ssize_t ahead, Py_ssize_t out_ahead, Coefficients k, Mask mask, const Fused* fused,
    int how, bint stream,
) noexcept nogil:
    """Map from j on in strips of n values, as far as they go; return where the rest begins."""
    # In 16 bit it takes a strip to stream as many bytes.
    cdef Py_ssize_t _, m = min(n, VECTOR if sizeof(real) >= sizeof(float) else STRIP)
    while j + n <= stop:
        if ahead:
            prefetch(x + j + ahead, n * sizeof(real))
        if ahead and dy != NULL:
            prefetch(dy + j + ahead, n * sizeof(real))
        if out_ahead:       # a line that is written to is read first
            prefetch(out + j + out_ahead, n * sizeof(real))
        if fused != NULL and ahead and how != CLIPPED:
            prefetch_third(x, fused, out + j + ahead - <real*>fused.out, n)
        for _ in range(n // m):
            map_vector(x + j, dy + j if dy != NULL else NULL, out + j, m, advanced(k, j),
                       mask + j if mask != NULL else NULL, fused, how, stream)
            j += m
    return j


cdef inline void map_strips(
    const real* x, const real* dy, real* out, Py_ssize_t length, Py_ssize_t ahead,
    Py_ssize_t out_ahead, Coefficients k, Mask mask, const Fused* fused, int how, bint stream,
) noexcept nogil:
    """Map neighbouring values, in strips of fixed lengths, as vectors are."""
    cdef Py_ssize_t j = 0, stop
    if stream:          # strips that begin a line
        stop = min(to_line(out) // sizeof(real), length)
        j = map_stretch(x, dy, out, j, stop, 8, 0, 0, k, mask, fused, how, False)
        j = map_stretch(x, dy, out, j, stop, 1, 0, 0, k, mask, fused, how, False)
    j = map_stretch(x, dy, out, j, length, STRIP, ahead, out_ahead, k, mask, fused, how, stream)
    if stream:          # of float32, what is left of whole lines
        j = map_stretch(x, dy, out, j, length, 2 * LINE, ahead, 0, k, mask, fused, how, stream)
    j = map_stretch(x, dy, out, j, length, 8, 0, 0, k, mask, fused, how, False)
    j = map_stretch(x, dy, out, j, length, 1, 0, 0, k, mask, fused, how, False)


cdef enum:              # what is mapped, and how: constants in a loop without a mask
    BOTH = 1            # x and dy, not x alone
    STREAM = 2
    MASKED = 4
    FUSED = 8           # and then times 16, how
    HOW = 16


cdef inline int coefficients_of(int kind) noexcept nogil:
    return 3 if not kind & BOTH else 5 if kind & FUSED else 4


cdef inline void map_band(
    const Call* call, const real* x, const Band* band, int kind, Coefficients k,
) noexcept nogil:
    cdef const real* dy = NULL
    cdef Mask mask = NULL
    cdef const Fused* fused = NULL
    cdef real* out = <real*>call.out + band.offset
    cdef Py_ssize_t stride = call.plan.row_stride, ahead = call.plan.map_ahead
    cdef Py_ssize_t out_ahead = 0 if kind & STREAM else call.plan.out_ahead
    cdef bint stream = kind & STREAM
    cdef Py_ssize_t _
    x += band.offset
    if kind & BOTH:
        dy = <const real*>not_null(<const real*>call.dy + band.offset)
    if kind & MASKED:
        mask = <Mask>not_null(call.where + band.offset)
    if kind & FUSED:
        fused = <const Fused*>not_null(call.fused)
    for _ in range(band.rows):
        map_strips(x, dy, out, band.width, ahead, out_ahead, k, mask, fused, kind // HOW, stream)
        x += stride
        out += stride
        if dy != NULL:
            dy += stride
        if mask != NULL:
            mask += stride


cdef inline void map_cell(
    const Call* call, const real* x, const Tile* tile, Py_ssize_t block, int kind,
) noexcept nogil:
    """Map units whose rows lie end to end, all of one cell."""
    cdef const Plan* p = &call.plan
    cdef double of_cell[5]
    cdef Py_ssize_t i, place
    cdef Unit unit
    cdef Band band
    for i in range(coefficients_of(kind)):
        of_cell[i] = call.coefficients[i][tile.first_cell]
    for i in range(block * p.map_units, min((block + 1) * p.map_units, p.units)):
        unit = unit_at(p, tile, i)
        band = Band(unit.offset, 1, 0, unit.rows * tile.width + unit.tail)
        place = unit.first_row * tile.width
        if call.gamma == NULL:
            map_band(call, x, &band, kind, Coefficients(&of_cell[0], 1, 0, NULL, NULL))
        else:
            map_band(call, x, &band, kind, Coefficients(
                &of_cell[0], 1, 0, <const double*>not_null(call.gamma + place), call.beta + place))


cdef inline void map_lanes(
    const Call* call, const real* x, const Tile* tile, Py_ssize_t block, int kind,
    const void* lines,
) noexcept nogil:
    """Map units whose lanes have coefficients of their own.

    Rows begin and end where `lines` do, the cache lines of an array: with lanes of the next tile,
    unless that may be unsolved. If the array is `out` nobody else then writes to a line.
    """
    cdef const Plan* p = &call.plan
    cdef bint alone = call.by_part and p.sample_tiles > 1   # others may be unsolved
    cdef Py_ssize_t skew = skew_of(p, tile.offset, lines, sizeof(real))
    cdef Py_ssize_t next_skew = 0
    cdef double* lanes = lanes_from(thread_lanes(), skew)
    # Four coefficients for each lane of the widest rows would fill the first-level cache.
    cdef Py_ssize_t step = APART
    cdef Unit unit
    cdef Band bands[BANDS]
    cdef Band part
    cdef Py_ssize_t i, n, lane, heads
    cdef bint closed
    if not alone:
        next_skew = skew_of(p, tile.offset + tile.width, lines, sizeof(real))
    if kind & BOTH and tile.width > WIDTH * 7 // 8:
        step = WIDTH // 2 + MARGIN
    for i in range(coefficients_of(kind)):
        spread(p, tile, call.coefficients[i], lanes + i * APART, not alone)
    for i in range(block * p.map_units, min((block + 1) * p.map_units, p.units)):
        unit = unit_at(p, tile, i)
        heads = unit.rows if alone else 1 if tile.first and unit.first_row == 0 else 0
        closed = alone or (tile.last and unit.first_row + unit.rows == p.rows)
        for n in range(cut(p, tile, &unit, skew, next_skew, heads, closed, bands)):
            part = bands[n]
            lane = 0
            while lane < bands[n].width:
                part.width = min(step, bands[n].width - lane)
                map_band(call, x, &part, kind,
                         Coefficients(lanes + part.lane, APART, 1, NULL, NULL))
                part.offset += part.width
                part.lane += part.width
                lane += part.width


cdef inline void map_block(
    const Call* call, const real* x, Py_ssize_t tile_index, Py_ssize_t block, int kind,
) noexcept nogil:
    """Map x (and dy) to out."""
    cdef const Plan* p = &call.plan
    cdef Tile tile = tile_at(p, tile_index)
    cdef const void* lines = x      # where they begin
    if kind & STREAM:
        lines = call.out
    if p.span == tile.width == p.row_stride:
        map_cell(call, x, &tile, block, kind)
    else:
        map_lanes(call, x, &tile, block, kind, lines)


# A loop for each kind of call: functions of their own, as in sums.pxd.

cdef inline void map_x(
    const Call* call, const real* x, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    map_block(call, x, tile, block, 0)


cdef inline void map_x_streaming(
    const Call* call, const real* x, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    map_block(call, x, tile, block, STREAM)


cdef inline void map_both(
    const Call* call, const real* x, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    map_block(call, x, tile, block, BOTH)


cdef inline void map_both_streaming(
    const Call* call, const real* x, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    map_block(call, x, tile, block, BOTH | STREAM)


cdef inline void map_either(
    const Call* call, const real* x, Py_ssize_t tile, Py_ssize_t block, int kind,
) noexcept nogil:
    """x alone, or x and dy; streaming or not."""
    if call.stream:
        kind |= STREAM
    if call.dy == NULL:
        map_block(call, x, tile, block, kind)
    else:
        map_block(call, x, tile, block, kind | BOTH)


cdef inline void map_masked(
    const Call* call, const real* x, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    map_either(call, x, tile, block, MASKED)


cdef inline void map_fused(
    const Call* call, const real* x, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    map_either(call, x, tile, block, FUSED | (MASKED if call.where != NULL else 0))


cdef inline void map_clipped(
    const Call* call, const real* x, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    map_either(call, x, tile, block, FUSED | CLIPPED * HOW)


cdef inline void map_added(
    const Call* call, const real* x, Py_ssize_t tile, Py_ssize_t block,
) noexcept nogil:
    map_either(call, x, tile, block, FUSED | ADDED * HOW)


cdef inline Pass map_pass(const Call* call, const real* x) noexcept nogil:
    if call.fused != NULL and not call.fused.is_early:
        if call.how == CLIPPED:
            return <Pass>map_clipped[real]
        return <Pass>map_added[real] if call.how == ADDED else <Pass>map_fused[real]
    if call.where != NULL:
        return <Pass>map_masked[real]
    if call.dy == NULL:
        return <Pass>map_x_streaming[real] if call.stream else <Pass>map_x[real]
    return <Pass>map_both_streaming[real] if call.stream else <Pass>map_both[real]
