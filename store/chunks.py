"""Where blocks lie on disk, and which blocks are left to compute.

A chunk of the cube holds one value of each constant and of the control parameter, one N,
``block_seeds`` seeds, all initialisations and all replicas.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from store.keys import Block, Grid
from store.schema import Status

INITS_PER_CHUNK = 4
"""Room for initialisations in one chunk: their vocabulary is small, and with a fixed room a new one
is added without moving a byte."""

Region = tuple[int | slice, ...]


def chunk_shape(grid: Grid, block_seeds: int) -> tuple[int, ...]:
    """Shape of a chunk: one of each label up to N, `block_seeds` seeds, all inits and replicas."""
    sizes = {"seed": block_seeds, "init": INITS_PER_CHUNK, "replica": grid.replicas or 1}
    return tuple(sizes.get(dim, 1) for dim in grid.axes())


def locate_block(grid: Grid, block: Block, block_seeds: int) -> tuple[Region, list[int], list[int]]:
    """Chunk that holds a block, and the block's place in it.

    Parameters
    ----------
    grid : Grid
        Labels of the store.
    block : Block
        Block to locate.
    block_seeds : int
        Seeds in a chunk.

    Returns
    -------
    region : tuple, one entry for each axis
        Cells of the chunk in the cube: a position up to N, then slices, cut at the cube's shape.
    seeds, inits : list of int
        Positions of the block's seeds and inits inside the region.

    Raises
    ------
    ValueError
        If a label is not in the store, or the block spans several chunks.
    """
    places = dict(zip(grid.axes(), grid.find(block.grid), strict=True))
    region: list[int | slice] = []
    starts: dict[str, int] = {}
    for dim, size, length in zip(
        grid.axes(), chunk_shape(grid, block_seeds), grid.shape, strict=True
    ):
        place = places[dim]
        chunks = {position // size for position in place}
        if len(chunks) > 1:
            raise ValueError(
                f"block {block.key}: expected cells of one chunk ({block_seeds} seeds, "
                f"{INITS_PER_CHUNK} inits), got {len(chunks)} chunks; use pending_blocks to cut"
            )
        start = starts[dim] = chunks.pop() * size
        many = dim in ("seed", "init", "replica")
        region.append(slice(start, min(start + size, length)) if many else start)
    seeds, inits = (
        [position - starts[dim] for position in places[dim]] for dim in ("seed", "init")
    )
    return tuple(region), seeds, inits


def pending_blocks(
    grid: Grid, wanted: Grid, status: NDArray[np.int8], block_seeds: int
) -> list[tuple[Block, ...]]:
    """Blocks that cover the cells that are wanted and pending.

    One tuple for each chunk with such cells: all blocks of a chunk belong to one task, because two
    writers of one chunk lose each other's data. Inside a chunk, seeds with the same pending inits
    form one block; labels keep the order of the store. A seed and an init are computed with all
    their replicas, and so are pending if one replica is.

    Parameters
    ----------
    grid : Grid
        Labels of the store.
    wanted : Grid
        Labels of the campaign; all of them in the store.
    status : ndarray of int8, of the shape of `grid`
        Status of the store's cells; only ``Status.PENDING`` counts as pending.
    block_seeds : int
        Seeds in a chunk.

    Raises
    ------
    ValueError
        If a wanted label is not in the store.
    """
    places = dict(zip(grid.axes(), grid.find(wanted), strict=True))
    seed_chunks = _split_by_chunk(places["seed"], block_seeds)
    init_chunks = _split_by_chunk(places["init"], INITS_PER_CHUNK)
    names = [name for name, _ in grid.constants]
    tasks: list[tuple[Block, ...]] = []
    for place in itertools.product(*(places[dim] for dim in (*names, grid.control, "N"))):
        pending = status[place] == Status.PENDING
        if grid.replicas is not None:
            pending = pending.any(axis=-1)
        if not pending.any():
            continue
        *constants, value, size = place
        labels = tuple(
            (name, values[position])
            for (name, values), position in zip(grid.constants, constants, strict=True)
        )
        tasks.extend(
            tuple(
                Block(
                    grid.control,
                    grid.values[value],
                    grid.N[size],
                    tuple([grid.seeds[position] for position in rows]),
                    tuple([grid.inits[position] for position in columns]),
                    grid.replicas,
                    labels,
                )
                for rows, columns in rectangles
            )
            for rectangles in _cut_chunks(pending, seed_chunks, init_chunks)
        )
    return tasks


def _split_by_chunk(positions: list[int], size: int) -> list[list[int]]:
    chunks: dict[int, list[int]] = {}
    for position in sorted(positions):
        chunks.setdefault(position // size, []).append(position)
    return list(chunks.values())


def _cut_chunks(
    pending: NDArray[np.bool_], seed_chunks: list[list[int]], init_chunks: list[list[int]]
) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Rectangles of each chunk with pending cells; most are pending as a whole, or not at all."""
    order = [position for seeds in seed_chunks for position in seeds]
    starts = np.cumsum([0, *map(len, seed_chunks[:-1])])
    cuts = []
    for inits in init_chunks:
        rows = pending[np.ix_(order, inits)]
        some = np.logical_or.reduceat(rows.any(axis=1), starts).tolist()
        every = np.logical_and.reduceat(rows.all(axis=1), starts).tolist()
        cuts.append((inits, some, every))
    for chunk, seeds in enumerate(seed_chunks):
        for inits, some, every in cuts:
            if every[chunk]:
                yield [(seeds, inits)]
            elif some[chunk]:
                yield list(_cut_rectangles(pending, seeds, inits))


def _cut_rectangles(
    pending: NDArray[np.bool_], seeds: list[int], inits: list[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Positions (seeds, inits) of rectangles that together cover the pending cells."""
    rows: dict[tuple[bool, ...], list[int]] = {}
    for seed, row in zip(seeds, pending[np.ix_(seeds, inits)].tolist(), strict=True):
        rows.setdefault(tuple(row), []).append(seed)
    for mask, members in rows.items():
        if any(mask):
            yield members, [init for init, wanted in zip(inits, mask, strict=True) if wanted]
