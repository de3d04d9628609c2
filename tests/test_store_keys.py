"""Labels of grids and blocks, and the random streams that follow from them."""

from dataclasses import replace

import numpy as np
import pytest

from store.keys import Block, BlockKeyError, Grid, instance_stream, parse_block

GRID = Grid("alpha", (2.5, 1.5), (64, 128), (0, 1, 2), ("random", "spectral"))


def test_grid_names_its_axes() -> None:
    assert GRID.shape == (2, 2, 3, 2)
    assert list(GRID.axes()) == ["alpha", "N", "seed", "init"]
    assert GRID.axes()["seed"] == (0, 1, 2)


def test_union_appends_and_keeps_the_order() -> None:
    other = Grid("alpha", (2.0, 1.5), (32,), (0, 1, 2, 3), ("constrained", "random"))
    union = GRID.union(other)
    assert union.values == (2.5, 1.5, 2.0)
    assert union.N == (64, 128, 32)
    assert union.seeds == (0, 1, 2, 3)
    assert union.inits == ("random", "spectral", "constrained")
    assert union.union(GRID) == union


def test_missing_labels_are_listed_by_axis() -> None:
    wanted = Grid("alpha", (2.0, 1.5), (64,), (2, 3), ("random",))
    assert wanted.missing_from(GRID) == {"alpha": (2.0,), "seed": (3,)}
    assert wanted.missing_from(GRID.union(wanted)) == {}


def test_positions_follow_the_labels() -> None:
    wanted = Grid("alpha", (1.5,), (128, 64), (2, 0), ("spectral",))
    assert GRID.find(wanted) == ([1], [1, 0], [2, 0], [1])


def test_replicas_are_an_axis_that_does_not_grow() -> None:
    grid = replace(GRID, replicas=2)
    assert grid.shape == (2, 2, 3, 2, 2)
    assert grid.axes()["replica"] == (0, 1)
    assert grid.union(replace(grid, seeds=(7,))).shape == (2, 2, 4, 2, 2)
    assert grid.find(replace(grid, seeds=(2, 0))) == ([0, 1], [0, 1], [2, 0], [0, 1], [0, 1])
    assert "replica" not in GRID.axes()
    for other in (GRID, replace(grid, replicas=3)):
        for mix in (grid.union, grid.missing_from, grid.find):
            expected = "axis replica: expected (no|[23]) replicas in both .*, got (no|[23]) rep"
            with pytest.raises(ValueError, match=expected):
                mix(other)


def test_constants_are_the_first_axes_and_grow() -> None:
    grid = replace(GRID, constants=(("a", (0.1, 1.0)),))
    assert grid.shape == (2, 2, 2, 3, 2)
    assert list(grid.axes()) == ["a", "alpha", "N", "seed", "init"]
    wanted = replace(GRID, values=(1.5,), constants=(("a", (10.0, 0.1)),))
    assert wanted.missing_from(grid) == {"a": (10.0,)}
    assert grid.union(wanted).constants == (("a", (0.1, 1.0, 10.0)),)
    assert grid.find(replace(grid, constants=(("a", (1.0,)),)))[0] == [1]
    for other in (GRID, replace(GRID, constants=(("delta_p", (0.1, 1.0)),))):
        for mix in (grid.union, grid.missing_from, grid.find):
            expected = r"that are axes: expected .* in both grids, got .* when a store is created"
            with pytest.raises(ValueError, match=expected):
                mix(other)
    for values in ((), (1.0, 1.0), (float("nan"),)):
        with pytest.raises(ValueError, match="axis a: expected"):
            replace(GRID, constants=(("a", values),))


def test_unknown_labels_have_no_position() -> None:
    with pytest.raises(ValueError, match=r"got \{'N': \(256,\)\} beside them; grow the store"):
        GRID.find(Grid("alpha", (1.5,), (256,), (0,), ("random",)))


def test_grids_of_different_control_do_not_mix() -> None:
    other = Grid("snr", (2.5,), (64,), (0,), ("random",))
    for mix in (GRID.union, GRID.missing_from, GRID.find):
        with pytest.raises(ValueError, match=r"got '(alpha|snr)'"):
            mix(other)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (((), (64,), (0,), ("random",)), "axis alpha: expected at least one label"),
        (
            ((1.5,), (64, 64), (0,), ("random",)),
            r"axis N: expected each label once, got \(64, 64\)",
        ),
        (((1.5,), (64,), (0,), ("random",), 0), "axis replica: expected at least one label"),
        (((float("inf"),), (64,), (0,), ("random",)), "axis alpha: expected finite labels"),
    ],
)
def test_bad_axes_are_refused(
    labels: tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...], tuple[str, ...]]
    | tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...], tuple[str, ...], int],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        Grid("alpha", *labels)


def test_block_key_is_readable_and_stable() -> None:
    block = Block("alpha", 2.5, 128, (*range(16, 32), 40, 42, 43), ("random", "spectral"))
    assert block.key == "alpha=2.5,N=128,seeds=16-31+40+42-43,inits=random+spectral"
    assert block.shape == (19, 2)
    assert block.runs == 38
    wide = replace(block, replicas=3)
    assert wide.key == f"{block.key},replicas=3"
    assert (wide.shape, wide.runs) == ((19, 2, 3), 114)
    assert wide.grid.shape == (1, 1, 19, 2, 3)
    tagged = replace(wide, constants=(("a", 0.1),))
    assert tagged.key == f"a=0.1,{wide.key}"
    assert (tagged.shape, tagged.grid.shape) == (wide.shape, (1, *wide.grid.shape))


def test_block_key_keeps_every_digit_of_the_control_value() -> None:
    value = 0.1 + 0.2
    key = Block("snr", value, 64, (0,), ("random",)).key
    assert float(key.split(",")[0].removeprefix("snr=")) == value


def test_stream_is_pinned() -> None:
    """Golden values: stores made earlier must stay reproducible."""
    stream = instance_stream(20240305, "phase_retrieval", 128, 320, 7)
    assert stream.generate_state(4).tolist() == [2666615743, 1342621601, 3411905613, 2732370536]
    assert np.random.Philox(stream).random_raw(2).tolist() == [
        15909324361785541317,
        305431131872688093,
    ]


def test_stream_depends_on_every_label_and_on_nothing_else() -> None:
    labels = (1, "phase_retrieval", 128, 320, 7)
    state = instance_stream(*labels).generate_state(4).tolist()
    assert instance_stream(*labels).generate_state(4).tolist() == state
    others = [
        (2, "phase_retrieval", 128, 320, 7),
        (1, "spiked_matrix_tensor", 128, 320, 7),
        (1, "phase_retrieval", 320, 128, 7),
        (1, "phase_retrieval", 128, 321, 7),
        (1, "phase_retrieval", 128, 320, 8),
    ]
    states = [instance_stream(*other).generate_state(4).tolist() for other in others]
    assert state not in states
    assert len({tuple(other) for other in states}) == len(others)


def test_stream_takes_labels_of_numpy() -> None:
    plain = instance_stream(1, "phase_retrieval", 128, 320, 7)
    numpy = instance_stream(1, "phase_retrieval", np.int64(128), np.int64(320), np.int64(7))  # type: ignore[arg-type]
    assert plain.spawn_key == numpy.spawn_key
    assert plain.generate_state(2).tolist() == numpy.generate_state(2).tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((-1, 128, 320, 7), r"entropy: expected 0 to 2\*\*128 - 1, got -1"),
        ((1, 128, 2**32, 7), r"M: expected 0 to 2\*\*32 - 1, got 4294967296"),
        ((1, 128, 320, -7), "seed: expected"),
    ],
)
def test_labels_that_could_share_a_stream_are_refused(
    labels: tuple[int, int, int, int], message: str
) -> None:
    entropy, N, M, seed = labels
    with pytest.raises(ValueError, match=message):
        instance_stream(entropy, "phase_retrieval", N, M, seed)


@pytest.mark.parametrize(
    "block",
    [
        Block("alpha", 2.5, 128, (16, 17, 18, 40), ("random", "spectral")),
        Block("snr", 1e-07, 8, (3,), ("random",), 4),
        Block("alpha", 2.5, 8, (0, 1), ("random",), None, (("a", 0.01),)),
    ],
)
def test_a_block_is_found_again_by_its_key(block: Block) -> None:
    assert parse_block(block.key) == block


@pytest.mark.parametrize(
    "key",
    [
        *("", "alpha=2.0", "alpha=x,N=8,seeds=0,inits=a", "alpha=2.0,N=8,seeds=2-1,inits=a"),
        *("N=8,seeds=0,inits=a", "beta=2.0,N=8,seeds=0,inits=a", "alpha=1.2.3,N=8,seeds=0,inits=a"),
    ],
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(BlockKeyError, match="expected a key such as"):
        parse_block(key)
