# The phases of a call, and the share of each thread in them.

from call cimport Call
from maps cimport stream_fence
from plan cimport Tile, ceil_div, part_stop, quotient, tile_at
from solve cimport was_far

cdef extern from "thread.h" nogil:
    ctypedef unsigned long arithmetic
    arithmetic plain_arithmetic() noexcept
    void restore_arithmetic(arithmetic) noexcept
    void raise_flag(bint* flag) noexcept
    bint flag_is_raised(const bint* flag) noexcept
    void barrier() noexcept

cdef enum Phase:
    PARTS           # all that follows, part by part
    SUMS
    SETTLE
    SUMS_AGAIN      # of cells that were not settled
    SETTLE_AGAIN
    SOLVE
    MAP


cdef inline void run_tiles(
    const Call* call, Phase phase, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t block,
) noexcept nogil:
    """Sum or map a block of neighbouring tiles."""
    cdef Py_ssize_t index
    cdef Tile tile
    for index in range(first, stop):
        if phase == MAP:
            call.map_pass(call, call.x, index, block)
            continue
        if phase == SUMS_AGAIN:
            tile = tile_at(&call.plan, index)
            if not was_far(call, tile.first_cell, tile.first_cell + tile.cells):
                continue
        call.sum_pass(call, call.u, index, block)


cdef inline bint run_part(const Call* call, Phase phase, Py_ssize_t part) noexcept nogil:
    """A phase of one part, or all, while it is in the cache. True: it is to be summed again."""
    cdef Py_ssize_t first = part * call.plan.part_tiles
    cdef Py_ssize_t block, stop = part_stop(&call.plan, part)
    cdef Tile first_tile = tile_at(&call.plan, first)
    cdef Tile last_tile = tile_at(&call.plan, stop - 1)
    cdef Py_ssize_t cell = first_tile.first_cell
    cdef Py_ssize_t stop_cell = last_tile.first_cell + last_tile.cells
    if phase == SETTLE or phase == SETTLE_AGAIN:
        return call.settle(call, cell, stop_cell, phase == SETTLE)
    if phase == SOLVE:
        call.solve(call, cell, stop_cell)
        return False
    for block in range(call.plan.blocks):
        run_tiles(call, SUMS, first, stop, block)
    if call.settle(call, cell, stop_cell, True):
        for block in range(call.plan.blocks):
            run_tiles(call, SUMS_AGAIN, first, stop, block)
        call.settle(call, cell, stop_cell, False)
    call.solve(call, cell, stop_cell)
    if call.out != NULL:
        for block in range(call.plan.map_blocks):
            run_tiles(call, MAP, first, stop, block)
    return False


cdef inline void run_share(
    const Call* call, Phase phase, Py_ssize_t share, Py_ssize_t shares, bint* again,
) noexcept nogil:
    """One thread's share of a phase."""
    cdef bint of_tiles = phase in (SUMS, SUMS_AGAIN, MAP)
    cdef Py_ssize_t tiles = call.plan.tiles
    cdef Py_ssize_t blocks = call.plan.map_blocks if phase == MAP else call.plan.blocks
    # Tiles of a part that add to the same sums of columns stay together.
    cdef Py_ssize_t together = call.plan.part_tiles if call.columns and phase == SUMS else 1
    cdef Py_ssize_t bundles = ceil_div(tiles, together)
    cdef Py_ssize_t tasks = bundles * blocks if of_tiles else call.plan.parts
    cdef Py_ssize_t task, turn, first
    for task in range(quotient(tasks * share, shares), quotient(tasks * (share + 1), shares)):
        if not of_tiles:
            if run_part(call, phase, task):
                raise_flag(again)
            continue
        # The map goes backwards: what was summed last is still in the cache.
        turn = tasks - 1 - task if phase == MAP and call.sums else task
        first = turn % bundles * together
        run_tiles(call, phase, first, min(tiles, first + together), turn // bundles)


cdef inline void run_phases(
    const Call* call, Py_ssize_t share, Py_ssize_t shares, bint* again,
) noexcept nogil:
    """Sum, settle, solve, map: one thread's share of all."""
    cdef arithmetic before = plain_arithmetic()
    cdef Phase first = PARTS if call.by_part else SUMS if call.sums else SOLVE
    cdef Phase last = PARTS if call.by_part else MAP if call.out != NULL else SOLVE
    cdef int phase
    for phase in range(first, last + 1):
        if (phase != SUMS_AGAIN and phase != SETTLE_AGAIN) or flag_is_raised(again):
            run_share(call, <Phase>phase, share, shares, again)
            stream_fence()
            if shares > 1:
                barrier()
    restore_arithmetic(before)
