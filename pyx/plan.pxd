# How an array (samples, outer, channels, inner) is cut into tiles, blocks and rows of lanes.
#
# A cell is a channel of a sample: what has coefficients of its own. `group` neighbouring cells have
# one statistic, and where statistics are `shared`, all the samples' cells of a channel have.
#
# A tile is one cell or several neighbouring ones. Its data are `runs` runs, each of `rows` rows
# of `width` lanes and a shorter `tail`; lane j of a row always belongs to the same cell:
#
#   along    inner is long, or has parameters of its own (`inside`): a tile is one cell, its rows
#            are LANES pieces of its own values.
#   across   inner is short (or 1): a row is the stretch of neighbouring channels, the next row lies
#            one outer step further. A matrix too narrow for that is folded: `fold` of its rows
#            make one row of lanes.
#
# A part is what can be solved by itself: the tiles of a group, a tile of whole groups, several of
# them if they are small or add to the same sums of columns, or where samples share statistics,
# everything.
#
# A run is cut into pieces, runs x pieces are the units, and a block is a number of units. Sums are
# made for sections of a block, whose rows are so few that rounding errors do not add up, then for
# the block, and blocks are added in their order: all that decides the order of summation is made
# from the shape alone. Where rows begin (`skew`) and the map's blocks (`plan_map`) do not.

from libc.string cimport memcpy

from rows cimport LANES, LINE, halve, on_line, repeat, to_line

cdef extern from "cache.h" nogil:
    void require "assert"(bint) noexcept    # of the debug build

cdef enum:
    WIDTH = 1024            # lanes of a tile at the most
    MARGIN = 32             # so many come behind the last one: a cache line in 16 bit
    APART = WIDTH + MARGIN  # lanes of what a tile has several rows of
    SKEWED_ROWS = 16        # from so many rows on, and
    SKEWED_WIDTH = 64       # so many lanes in each tile, rows may begin elsewhere than at lane 0
    FOLDED = 256            # lanes of a folded row, if it can be
    LONG = 512              # an inner axis from here on is summed along
    ACROSS_ROWS = 64        # rows of a piece
    DEPTH = 2               # rows of one array that a strip goes down: near to the order of memory
    ACROSS_VALUES = 16384   # of a piece, if there are several: four fit the second-level cache
    ALONG_ROWS = 256
    SECTION_ROWS = 256      # of a section
    BLOCK_VALUES = 32768    # a block is worth a thread's while
    BLOCK_ROWS = 128        # and has few partial sums: across, two for each cell
    BLOCKS = 64             # of one tile, at the most
    JOINED = 2              # of them, at the most, make one of the map alone, of several tiles
    COLUMN_ROWS = 32        # have sums of columns of their own, at the least: 1/8 of x's bytes
    PART_VALUES = 4096      # of a part at the least: to solve one has a long latency
    NEAR = 4096             # values ahead, where the next ones lie behind

cdef struct Shape:
    Py_ssize_t samples, outer, channels, inner
    Py_ssize_t group
    Py_ssize_t parameters           # values of gamma
    bint shared, inside

cdef struct Plan:
    Shape shape
    Py_ssize_t cells, size
    # Channels are cut into bundles, and these into tiles: a large group is a bundle, others are
    # all in one, and each in one tile.
    Py_ssize_t bundle_channels, bundle_tiles
    Py_ssize_t tile_channels, sample_tiles, tiles, part_tiles, parts
    bint along
    Py_ssize_t span                 # lanes of one cell
    Py_ssize_t fold
    Py_ssize_t runs, run_stride
    Py_ssize_t rows, row_stride, tail
    Py_ssize_t piece_rows, pieces
    Py_ssize_t units, section_units, block_units, blocks
    Py_ssize_t map_units, map_blocks    # as block_units and blocks, in the map
    Py_ssize_t column_tiles         # where the sums of columns are wanted, too: tiles of a part
    # How far ahead lies what is read next, for prefetching: hardware guesses only straight on.
    # 0 where that does not pay.
    Py_ssize_t sum_ahead, map_ahead, out_ahead
    bint small                      # so that all of it may well be in the first-level cache
    bint skewed                     # it pays if rows begin elsewhere than at lane 0

cdef struct Tile:
    Py_ssize_t first_cell, cells
    Py_ssize_t width                # lanes of a row
    Py_ssize_t offset               # of its first value
    bint first, last                # of its sample

cdef struct Unit:                   # of a tile
    Py_ssize_t offset
    Py_ssize_t first_row, rows      # in its run
    Py_ssize_t tail

cdef struct Band:                   # of a unit: rows of neighbouring lanes
    Py_ssize_t offset, rows
    Py_ssize_t lane, width          # lanes past the last one are those of what comes next

cdef enum:
    BANDS = 3                       # of a unit, at the most


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline Py_ssize_t quotient(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    """a // b, of which b is mostly 1 or larger than a, and then takes no division."""
    return a if b == 1 else a // b if a >= b else 0


cdef inline void plan_along(Plan* p, const Shape* s) noexcept nogil:
    p.bundle_channels, p.bundle_tiles, p.tile_channels = s.channels, s.channels, 1
    p.span, p.fold = LANES, 1
    p.runs, p.run_stride = s.outer, s.channels * s.inner
    p.rows, p.row_stride, p.tail = s.inner // LANES, LANES, s.inner % LANES
    p.piece_rows = ALONG_ROWS
    p.sum_ahead = p.run_stride if s.outer > 1 and p.rows <= ALONG_ROWS else NEAR
    p.map_ahead = NEAR


cdef inline void plan_across(Plan* p, const Shape* s) noexcept nogil:
    cdef Py_ssize_t matrix_width = s.channels * s.inner
    cdef Py_ssize_t whole_strips = LANES
    while whole_strips > 1 and matrix_width % (2 * LANES // whole_strips) == 0:
        whole_strips //= 2
    while whole_strips * matrix_width < FOLDED and whole_strips * 2 * ACROSS_ROWS <= s.outer:
        whole_strips *= 2
    p.fold = max(1, min(whole_strips, WIDTH // matrix_width, s.outer))
    p.span = s.inner
    # Tiles of even width, of whole groups if these fit into one.
    cdef Py_ssize_t together = s.group if s.group * s.inner <= WIDTH else 1
    p.bundle_channels = s.group if together < s.group else s.channels
    cdef Py_ssize_t units = p.bundle_channels // together
    p.bundle_tiles = ceil_div(units, WIDTH // (together * s.inner))
    p.tile_channels = ceil_div(units, p.bundle_tiles) * together
    p.runs, p.run_stride = 1, 0
    p.rows, p.row_stride = s.outer // p.fold, p.fold * matrix_width
    p.tail = s.outer % p.fold * matrix_width
    p.piece_rows = ACROSS_ROWS
    if p.rows > ACROSS_ROWS:
        p.piece_rows = min(ACROSS_ROWS, ACROSS_VALUES // (p.fold * p.tile_channels * s.inner))
        p.piece_rows = p.piece_rows // 4 * 4
    # Rows further down; or in the next tile, if there is one, and it comes soon.
    p.map_ahead = ceil_div(NEAR, p.row_stride) * p.row_stride
    if p.rows <= ACROSS_ROWS and p.tile_channels < s.channels:
        p.map_ahead = p.tile_channels * s.inner
    p.sum_ahead = p.map_ahead
    if p.rows > ACROSS_ROWS:
        p.sum_ahead = max(p.sum_ahead, DEPTH * p.row_stride)


cdef inline Plan make_plan(Shape s) noexcept nogil:
    cdef Plan p
    if s.outer == 1 and not s.shared:       # then samples are so many more channels
        s.samples, s.channels = 1, s.samples * s.channels
    p.shape = s
    p.along = s.inner >= LONG or s.inside
    if p.along:
        plan_along(&p, &s)
    else:
        plan_across(&p, &s)
    p.cells = s.samples * s.channels
    p.size = p.cells * s.outer * s.inner
    p.small = p.size <= NEAR
    if p.small:
        p.sum_ahead = p.map_ahead = 0
    p.sample_tiles = s.channels // p.bundle_channels * p.bundle_tiles
    p.tiles = s.samples * p.sample_tiles
    p.part_tiles = p.tiles if s.shared else ceil_div(s.group, p.tile_channels)
    p.part_tiles *= max(1, PART_VALUES * p.tiles // (p.part_tiles * p.size))
    p.parts = ceil_div(p.tiles, p.part_tiles)
    p.pieces = max(1, ceil_div(p.rows, p.piece_rows))
    p.units = p.runs * p.pieces
    cdef Py_ssize_t unit_values = min(p.piece_rows, p.rows) * p.fold * p.tile_channels * p.span
    p.block_units = max(ceil_div(p.units, BLOCKS), ceil_div(BLOCK_VALUES, max(1, unit_values)))
    p.block_units = max(p.block_units, ceil_div(BLOCK_ROWS, p.piece_rows))
    p.blocks = ceil_div(p.units, p.block_units)
    p.section_units = max(1, SECTION_ROWS // max(1, min(p.piece_rows, p.rows)))
    cdef Py_ssize_t last_channels = p.bundle_channels - (p.bundle_tiles - 1) * p.tile_channels
    p.skewed = p.rows >= SKEWED_ROWS and p.fold * last_channels * p.span >= SKEWED_WIDTH
    p.column_tiles = max(
        COLUMN_ROWS, ceil_div(p.tiles, 4 * BLOCKS), ceil_div(BLOCK_VALUES, s.inner))
    return p


cdef inline Tile tile_at(const Plan* p, Py_ssize_t index) noexcept nogil:
    cdef Tile tile
    cdef Py_ssize_t sample = quotient(index, p.sample_tiles)
    cdef Py_ssize_t in_sample = index - sample * p.sample_tiles
    cdef Py_ssize_t bundle = quotient(in_sample, p.bundle_tiles)
    cdef Py_ssize_t in_bundle = (in_sample - bundle * p.bundle_tiles) * p.tile_channels
    cdef Py_ssize_t channel = bundle * p.bundle_channels + in_bundle
    tile.first_cell = sample * p.shape.channels + channel
    tile.cells = min(p.tile_channels, p.bundle_channels - in_bundle)
    tile.width = p.fold * tile.cells * p.span
    tile.offset = (sample * p.shape.outer * p.shape.channels + channel) * p.shape.inner
    tile.first, tile.last = channel == 0, channel + tile.cells == p.shape.channels
    return tile


cdef inline Py_ssize_t part_stop(const Plan* p, Py_ssize_t part) noexcept nogil:
    """The tile after the last one of a part."""
    return min(p.tiles, (part + 1) * p.part_tiles)


cdef inline Unit unit_at(const Plan* p, const Tile* tile, Py_ssize_t index) noexcept nogil:
    cdef Unit unit
    cdef Py_ssize_t run = quotient(index, p.pieces)
    cdef Py_ssize_t piece = index - run * p.pieces
    unit.first_row = piece * p.piece_rows
    unit.rows = min(p.piece_rows, p.rows - unit.first_row)
    unit.tail = p.tail if piece == p.pieces - 1 else 0
    unit.offset = tile.offset + run * p.run_stride + unit.first_row * p.row_stride
    # In the debug build: abort if it reaches outside of the array.
    require(0 <= tile.first_cell and tile.first_cell + tile.cells <= p.cells)
    require(0 < tile.width <= WIDTH and unit.tail <= p.row_stride and unit.rows >= 0)
    require(0 <= tile.offset <= unit.offset)
    require(unit.rows == 0
            or unit.offset + (unit.rows - 1) * p.row_stride + tile.width <= p.size)
    require(unit.tail == 0 or unit.offset + unit.rows * p.row_stride + unit.tail <= p.size)
    return unit


cdef inline Py_ssize_t skew_of(
    const Plan* p, Py_ssize_t offset, const void* values, size_t itemsize,
) noexcept nogil:
    """How far from there a cache line begins in every row; 0 if it does not pay, or in none."""
    if not p.skewed or p.row_stride * itemsize % (LINE * sizeof(double)):
        return 0
    return to_line(<const char*>values + offset * itemsize) // itemsize


cdef inline double* lanes_from(double* space, Py_ssize_t skew) noexcept nogil:
    """Where lanes begin if lane `skew` is to begin a cache line: vectors then lie in one each."""
    return on_line(space) + (-skew & (LINE - 1))


cdef inline int cut(
    const Plan* p, const Tile* tile, const Unit* unit, Py_ssize_t skew, Py_ssize_t next_skew,
    Py_ssize_t heads, bint closed, Band* bands,
) noexcept nogil:
    """Cut a unit so that its rows begin at lane `skew`, and end `next_skew` lanes behind the tile.

    These are the first lanes of the next tile, or row. The lanes before `skew` are cut off from so
    many rows as `heads` says; if the unit is `closed` its last row ends with the tile, and with the
    tail. Return how many bands there are.
    """
    cdef Py_ssize_t rows = unit.rows - 1 if closed and next_skew > unit.tail else unit.rows
    cdef Py_ssize_t body = unit.offset + skew
    cdef Py_ssize_t rest = body + rows * p.row_stride
    cdef Py_ssize_t stop = unit.offset + (unit.rows - 1) * p.row_stride + tile.width + unit.tail
    cdef int n = 0
    if skew and heads:
        bands[n] = Band(unit.offset, heads, 0, skew)
        n += 1
    if rows:
        bands[n] = Band(body, rows, skew, tile.width - skew + next_skew)
        n += 1
    if closed and stop > rest:
        bands[n] = Band(rest, 1, skew, stop - rest)
        n += 1
    require(rows >= 0 and skew < MARGIN and next_skew < MARGIN)
    require(skew == 0 or skew < tile.width)
    return n


cdef inline void spread_cells(
    const double* values, Py_ssize_t span, Py_ssize_t count, double* lanes,
) noexcept nogil:
    cdef Py_ssize_t j, n
    while count > 0:
        n = min(span, count)
        for j in range(n):
            lanes[j] = values[0]
        values += 1
        lanes += n
        count -= n


cdef inline void spread(
    const Plan* p, const Tile* tile, const double* values, double* lanes, bint next_too,
) noexcept nogil:
    """Give every lane of a tile the value of its cell; those behind it too, if they are its own
    once more, or if the next tile's are asked for."""
    values += tile.first_cell
    if p.span == 1:
        memcpy(lanes, values, tile.cells * sizeof(double))
    else:
        spread_cells(values, p.span, tile.cells * p.span, lanes)
    if p.sample_tiles == 1:
        repeat(lanes, tile.width + MARGIN, tile.cells * p.span)
    elif next_too and p.skewed:
        values += tile.cells - (p.shape.channels if tile.last else 0)
        spread_cells(values, p.span, MARGIN, lanes + tile.width)


cdef inline void put(
    const double* lanes, Py_ssize_t span, Py_ssize_t count, double* values, bint more,
) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(count):
        values[c] = values[c] + lanes[c * span] if more else lanes[c * span]


cdef inline void gather(
    const Plan* p, const Tile* tile, double* lanes, double* values, bint more,
) noexcept nogil:
    """Sum the lanes of every cell of a tile; if there is more to come, add to what was before."""
    cdef Py_ssize_t c
    values += tile.first_cell
    halve(lanes, p.fold, tile.cells * p.span)
    if p.span == 1:
        put(lanes, 1, tile.cells, values, more)
        return
    for c in range(tile.cells):
        halve(lanes + c * p.span, p.span, 1)
    put(lanes, p.span, tile.cells, values, more)


cdef inline void keep_columns(Plan* p) noexcept nogil:
    """Make parts large enough to have sums of their columns of their own."""
    p.part_tiles = p.column_tiles
    p.parts = ceil_div(p.tiles, p.part_tiles)


cdef inline void plan_map(
    Plan* p, bint from_memory, bint without_sums, int threads,
) noexcept nogil:
    """Choose the blocks of the map. Without sums it follows memory: along, block by block is run
    after run. Across, the lanes of a single tile are spread out once for each thread. Several tiles
    take turns, so that their rows are written soon one after the other, but not too often.

    What was just summed is in a cache, but the lines that are written to may not be.
    """
    p.out_ahead = 0 if without_sums and not from_memory else p.map_ahead
    if not from_memory:
        p.map_ahead = 0
    p.map_units = p.block_units
    if without_sums and p.along:
        p.map_units = min(p.block_units, p.pieces)
    elif without_sums and p.tiles == 1:
        p.map_units = ceil_div(p.units, threads)
    elif without_sums:
        p.map_units = max(
            p.block_units, min(JOINED * p.block_units, p.units * p.tiles // (4 * threads)))
    p.map_blocks = ceil_div(p.units, p.map_units)
