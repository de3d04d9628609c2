"""Figures of reduced datasets: what they contain, that nothing overlaps, that files are right."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures_recovery import paired_figure, recovery_figure
from pipeline.figures_style import save_figure
from pipeline.figures_theory import phase_retrieval_thresholds
from pipeline.recovery_curve import probability
from pipeline.reductions import reduce_cube
from pipeline.theory.laws import LawError
from pipeline.theory.threshold_states import ThresholdStateError
from store.schema import Status

ALPHA = np.array([1.5, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 5.0, 6.0])
TextCheck = Callable[[Figure], list[tuple[str, str]]]
INITS = ("random", "spectral", "constrained")


def make_reduced(
    sizes: tuple[int, ...] = (64, 128, 256),
    inits: tuple[str, ...] = INITS,
    *,
    control: str = "alpha",
    shift: float = 0.0,
    replicas: int | None = None,
) -> xr.Dataset:
    """Reduced cube with half points growing with log N, later for each init."""
    rng = np.random.default_rng(0)
    logs = np.log(np.array(sizes) / 64.0)[:, None, None]
    half = 2.2 + shift + 0.3 * logs + 1.0 * np.arange(len(inits))
    p = probability(2.5 * (ALPHA[:, None, None, None] - half))
    shape = (len(ALPHA), len(sizes), 40, len(inits))
    dims = (control, "N", "seed", "init")
    cube = xr.Dataset(
        {
            "status": (dims, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (dims, (rng.random(shape) < p).astype(np.int8)),
        },
        coords={
            control: ALPHA,
            "N": np.array(sizes),
            "seed": np.arange(40),
            "init": np.array(inits, dtype=np.dtypes.StringDType()),
        },
    )
    if replicas:
        cube = cube.expand_dims(replica=replicas, axis=-1)
    return reduce_cube(cube, resamples=100)


def texts_of(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_text()]


def test_thresholds_are_those_of_theory() -> None:
    assert list(phase_retrieval_thresholds(1.0).values()) == pytest.approx(
        [1.1349, 7.094], abs=1e-4
    )
    assert list(phase_retrieval_thresholds(0.01).values()) == pytest.approx(
        [2.8508, 4.436], abs=1e-4
    )
    with pytest.raises(LawError, match="a must be positive"):
        phase_retrieval_thresholds(0.0)


def test_lines_far_from_the_grid_are_left_out() -> None:
    figure = recovery_figure(make_reduced(), theory={"near": 11.0, "far": 51.0, "low": 0.5})
    assert all(texts_of(ax) == ["near"] for ax in figure.axes)
    assert figure.axes[0].get_xlim()[1] < 12


def test_a_panel_for_each_init_and_one_for_the_half_points() -> None:
    theory = phase_retrieval_thresholds(1.0)
    figure = recovery_figure(make_reduced(), theory=theory)
    assert len(figure.axes) == 4
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["(a) random", "(b) spectral", "(c) constrained", "(d) half-recovery point"]
    for ax in figure.axes:
        assert texts_of(ax) == list(theory)  # labelled in the panel itself
        low, high = ax.get_ylim() if ax is figure.axes[-1] else ax.get_xlim()
        assert all(low < value < high for value in theory.values())
    last = figure.axes[-1]
    assert last.get_xscale() == "log"
    assert [tick.get_text() for tick in last.get_xticklabels()] == ["64", "128", "256"]
    assert figure.axes[0].get_xlabel() == r"signal-to-noise ratio $\alpha = M/N$"


def test_points_curves_and_intervals_are_those_of_the_reductions() -> None:
    reduced = make_reduced()
    figure = recovery_figure(reduced)
    ax = figure.axes[1]
    assert len(ax.containers) == 3
    for N, container in zip((64, 128, 256), ax.containers, strict=True):
        one = reduced.sel(N=N, init="spectral")
        points, _, (bars,) = container.lines
        assert points.get_ydata() == pytest.approx(one["probability"].to_numpy())
        assert points.get_xdata() == pytest.approx(ALPHA, abs=0.05)
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        assert ends[:, 0] == pytest.approx(one["probability_low"].to_numpy())
        assert ends[:, 1] == pytest.approx(one["probability_high"].to_numpy())
    curves = [line for line in ax.lines if len(line.get_xdata()) == 400]
    for N, curve in zip((64, 128, 256), curves, strict=True):
        half = float(reduced["alpha_half"].sel(N=N, init="spectral"))
        assert np.interp(half, *curve.get_data()) == pytest.approx(0.5, abs=0.01)
        slope = float(reduced["curve_slope"].sel(N=N, init="spectral"))
        x, y = map(np.asarray, curve.get_data())
        assert y == pytest.approx(probability(slope * (x - half)))
    assert ax.get_xscale() == "linear"
    halves = figure.axes[-1].containers
    assert halves[0].lines[0].get_ydata() == pytest.approx(
        reduced["alpha_half"].sel(init="random").to_numpy()
    )


def test_colours_run_from_light_to_dark_and_differ_between_inits() -> None:
    figure = recovery_figure(make_reduced((64, 128, 256, 512)))
    colours = [c.lines[0].get_color() for c in figure.axes[0].containers]
    brightness = [float(np.dot(colour[:3], [0.299, 0.587, 0.114])) for colour in colours]
    assert brightness == sorted(brightness, reverse=True)
    assert brightness[0] < 0.75  # still seen on white paper
    signs = {(c.lines[0].get_color(), c.lines[0].get_marker()) for c in figure.axes[-1].containers}
    assert len({colour for colour, _ in signs}) == len({marker for _, marker in signs}) == 3


@pytest.mark.parametrize(
    ("sizes", "inits", "theory"),
    [
        ((64, 128, 256), INITS, phase_retrieval_thresholds(1.0)),
        ((64,), ("random",), {}),
        ((64, 128), ("random", "spectral"), phase_retrieval_thresholds(0.01)),
        ((64, 128, 256, 512, 1024, 2048, 4096, 8192), INITS, {"$x_1$": 3.0, "$x_2$": 3.3}),
        (tuple(64 * 2**i for i in range(11)), INITS, {}),
        ((64, 70, 80, 1024), INITS, {}),
    ],
)
def test_no_text_lies_on_another(
    sizes: tuple[int, ...],
    inits: tuple[str, ...],
    theory: dict[str, float],
    overlapping_texts: TextCheck,
) -> None:
    figure = recovery_figure(make_reduced(sizes, inits), theory=theory)
    assert overlapping_texts(figure) == []
    assert len(figure.axes) == len(inits) + 1


@pytest.mark.parametrize(("shift", "sign"), [(8.0, 1.0), (-8.0, -1.0)])
def test_an_arrow_shows_a_half_point_beyond_the_grid(shift: float, sign: float) -> None:
    figure = recovery_figure(make_reduced(shift=shift))
    last = figure.axes[-1]
    arrows = [text for text in last.texts if not text.get_text()]
    assert len(arrows) == 9
    low, high = last.get_ylim()
    for arrow in arrows:
        assert sign * (arrow.xy[1] - arrow.xyann[1]) > 0
        assert low < arrow.xy[1] < high


def test_seeds_and_replicas_are_said(overlapping_texts: TextCheck) -> None:
    figure = recovery_figure(make_reduced(replicas=4))
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "40 seeds × 4 replicas a point"
    assert overlapping_texts(figure) == []
    (legend,) = recovery_figure(make_reduced()).legends
    assert not legend.get_title().get_text()


def test_sharp_curves_have_points_and_no_invented_fit(tmp_path: Path) -> None:
    reduced = make_reduced()
    reduced["curve_slope"][:] = np.nan
    reduced["curve_intercept"][:] = np.nan
    save_figure(recovery_figure(reduced), tmp_path / "sharp")


def test_pairs_of_initialisations(overlapping_texts: TextCheck) -> None:
    reduced = make_reduced()
    figure = paired_figure(reduced)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == [
        "(a) random − constrained",
        "(b) spectral − constrained",
        "(c) spectral − random",
    ]
    points, _, (bars,) = figure.axes[2].containers[1].lines
    part = reduced.sel(N=128, pair="spectral-random")
    assert points.get_ydata() == pytest.approx(part["gain"].to_numpy())
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    assert ends[:, 0] == pytest.approx(part["gain_low"].to_numpy())
    assert overlapping_texts(figure) == []
    assert len(paired_figure(make_reduced(inits=INITS[:2])).axes) == 1


def test_other_control_parameters_are_named() -> None:
    figure = recovery_figure(make_reduced(control="snr"))
    assert figure.axes[0].get_xlabel() == r"signal-to-noise ratio $1/\Delta_2$"
    other = recovery_figure(make_reduced(control="temperature"))
    assert other.axes[0].get_xlabel() == "temperature"
    assert other.axes[-1].get_ylabel() == "half-recovery point of temperature"


def test_files_are_written_and_reproducible(tmp_path: Path) -> None:
    reduced = make_reduced((64, 128), ("random",))
    first = save_figure(recovery_figure(reduced), tmp_path / "new" / "folder" / "a=0.5")
    second = save_figure(recovery_figure(reduced), tmp_path / "again")
    assert [path.name for path in first] == ["a=0.5.png", "a=0.5.pdf"]
    assert first[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert first[1].read_bytes()[:5] == b"%PDF-"
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    # Width of the PNG header: 7 inches at 200 dots.
    assert int.from_bytes(first[0].read_bytes()[16:20], "big") == 1400


def test_settings_of_matplotlib_are_left_as_they_were() -> None:
    with mpl.rc_context({"font.size": 31.0, "axes.spines.top": True}):
        before = dict(mpl.rcParams)
        figure = recovery_figure(make_reduced((64,), ("random",)))
        assert dict(mpl.rcParams) == before
        assert figure.axes[0].xaxis.label.get_size() == 8.5


def test_a_figure_does_not_depend_on_threshold_states_being_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(a: float) -> float:
        raise ThresholdStateError(f"no threshold states for a = {a}")

    both = phase_retrieval_thresholds(1.0)
    monkeypatch.setattr("pipeline.figures_theory.bbp_at_threshold", fail)
    assert phase_retrieval_thresholds(1.0) == dict([*both.items()][:1])
