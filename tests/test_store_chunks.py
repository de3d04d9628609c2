"""Places of blocks in chunks, and the cut of pending cells into blocks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.chunks import INITS_PER_CHUNK, chunk_shape, locate_block, pending_blocks
from store.keys import Block, Grid
from store.schema import Status

INITS = ("random", "spectral", "constrained")
GRID = Grid("alpha", (2.5, 1.5), (64, 128), tuple(range(10)), INITS)


def test_empty_store_gives_whole_chunks() -> None:
    tasks = pending_blocks(GRID, GRID, np.zeros(GRID.shape, np.int8), 4)
    assert len(tasks) == 2 * 2 * 3
    assert tasks[0] == (Block("alpha", 2.5, 64, (0, 1, 2, 3), INITS),)
    assert tasks[2] == (Block("alpha", 2.5, 64, (8, 9), INITS),)


def test_a_pair_is_pending_with_all_its_replicas_if_one_is() -> None:
    grid = replace(GRID, replicas=3)
    status = np.full(grid.shape, Status.DONE, np.int8)
    status[1, 0, 5, 1, 2] = status[1, 0, 6, 1, :] = Status.PENDING
    status[0, 0, 0, 0, 1] = Status.FAILED
    ((block,),) = pending_blocks(grid, grid, status, 4)
    assert block == Block("alpha", 1.5, 64, (5, 6), ("spectral",), replicas=3)
    region, seeds, inits = locate_block(grid, block, 4)
    assert region == (1, 0, slice(4, 8), slice(0, 3), slice(0, 3))
    assert (seeds, inits) == ([1, 2], [1])


def test_finished_store_gives_nothing() -> None:
    for code in (Status.DONE, Status.FAILED, Status.QUARANTINED):
        assert pending_blocks(GRID, GRID, np.full(GRID.shape, code, np.int8), 4) == []


def test_new_initialisation_gives_one_block_of_a_chunk() -> None:
    status = np.ones(GRID.shape, np.int8)
    status[..., 2] = Status.PENDING
    tasks = pending_blocks(GRID, GRID, status, 16)
    assert len(tasks) == 4
    assert tasks[0] == (Block("alpha", 2.5, 64, GRID.seeds, ("constrained",)),)


def test_ragged_chunk_is_cut_into_rectangles_of_one_task() -> None:
    status = np.zeros(GRID.shape, np.int8)
    status[0, 0, 1, :] = Status.DONE
    status[0, 0, 2, 0] = Status.DONE
    first = pending_blocks(GRID, GRID, status, 4)[0]
    assert first == (
        Block("alpha", 2.5, 64, (0, 3), INITS),
        Block("alpha", 2.5, 64, (2,), ("spectral", "constrained")),
    )


def test_inits_beyond_the_room_of_a_chunk_are_another_task() -> None:
    inits = tuple("abcdef")
    grid = Grid("alpha", (2.5,), (64,), (0, 1), inits)
    tasks = pending_blocks(grid, grid, np.zeros(grid.shape, np.int8), 4)
    assert [block.inits for (block,) in tasks] == [inits[:INITS_PER_CHUNK], inits[INITS_PER_CHUNK:]]


def test_labels_must_be_in_the_store() -> None:
    wanted = Grid("alpha", (2.5,), (64,), (99,), INITS)
    with pytest.raises(ValueError, match="'seed': "):
        pending_blocks(GRID, wanted, np.zeros(GRID.shape, np.int8), 4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    entropy=st.integers(0, 2**32 - 1),
    block_seeds=st.integers(1, 12),
    done=st.floats(0, 1),
    replicas=st.sampled_from([None, 1, 2]),
    constants=st.sampled_from([(), (("a", (0.1, 1.0)),)]),
    data=st.data(),
)
def test_blocks_cover_the_pending_wanted_cells_exactly_once(
    entropy: int,
    block_seeds: int,
    done: float,
    replicas: int | None,
    constants: tuple[tuple[str, tuple[float, ...]], ...],
    data: st.DataObject,
) -> None:
    grid = replace(GRID, replicas=replicas, constants=constants)
    wanted = Grid(
        "alpha",
        tuple(data.draw(st.lists(st.sampled_from(GRID.values), min_size=1, unique=True))),
        tuple(data.draw(st.lists(st.sampled_from(GRID.N), min_size=1, unique=True))),
        tuple(data.draw(st.lists(st.sampled_from(GRID.seeds), min_size=1, unique=True))),
        tuple(data.draw(st.lists(st.sampled_from(GRID.inits), min_size=1, unique=True))),
        replicas,
        tuple((name, values[-1:]) for name, values in constants),
    )
    status = (np.random.default_rng(entropy).random(grid.shape) < done).astype(np.int8)
    covered = np.zeros(grid.shape, int)
    chunks = set()
    for blocks in pending_blocks(grid, wanted, status, block_seeds):
        regions = set()
        for block in blocks:
            covered[np.ix_(*grid.find(block.grid))] += 1
            regions.add(str(locate_block(grid, block, block_seeds)[0]))
        assert len(regions) == 1
        assert not regions & chunks
        chunks |= regions
    expected = np.zeros(grid.shape, int)
    expected[np.ix_(*grid.find(wanted))] = 1
    pending = status == Status.PENDING
    if replicas:  # a pair of seed and init is computed with all its replicas
        pending = np.broadcast_to(pending.any(axis=-1, keepdims=True), grid.shape)
    np.testing.assert_array_equal(covered, expected * pending)


def test_block_is_located_inside_its_chunk() -> None:
    block = Block("alpha", 1.5, 64, (9, 8), ("constrained", "random"))
    region, seeds, inits = locate_block(GRID, block, 4)
    assert region == (1, 0, slice(8, 10), slice(0, 3))
    assert (seeds, inits) == ([1, 0], [2, 0])
    assert chunk_shape(GRID, 4) == (1, 1, 4, INITS_PER_CHUNK)
    assert chunk_shape(replace(GRID, replicas=3), 4) == (1, 1, 4, INITS_PER_CHUNK, 3)


def test_a_chunk_holds_one_value_of_each_constant() -> None:
    grid = replace(GRID, constants=(("a", (0.1, 1.0)), ("delta_p", (1.0, 4.0, 2.0))))
    block = Block("alpha", 1.5, 64, (9, 8), INITS, constants=(("a", 1.0), ("delta_p", 2.0)))
    assert locate_block(grid, block, 4)[0] == (1, 2, 1, 0, slice(8, 10), slice(0, 3))
    assert chunk_shape(grid, 4) == (1, 1, 1, 1, 4, INITS_PER_CHUNK)


def test_block_over_two_chunks_is_refused() -> None:
    block = Block("alpha", 1.5, 64, (3, 4), INITS)
    with pytest.raises(ValueError, match=r"seeds=3-4.*one chunk \(4 seeds.*got 2 chunks"):
        locate_block(GRID, block, 4)
