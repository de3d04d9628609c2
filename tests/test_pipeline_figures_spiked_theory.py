"""Figures of the spiked model's theory: what they show is where it belongs."""

import numpy as np
import pytest

from pipeline.figures_spiked_theory import LINES, spiked_figures
from pipeline.theory.spiked_landscape import signal_state, signal_states
from pipeline.theory.spiked_model import SpikedModelError, make_spiked_model


def test_the_phase_diagram_has_its_lines_and_the_points_asked_for() -> None:
    (ax,) = dict(spiked_figures(1.0, []))["phase_diagram"].axes
    curves = {line.get_label(): line.get_xydata() for line in ax.lines}
    assert set(curves) == set(LINES)
    delta_p, delta_2 = curves["gradient flow (BBP)"].T
    assert np.interp(1.0, delta_p, delta_2) == pytest.approx(0.5, abs=1e-3)
    assert np.interp(4.0, delta_p, delta_2) == pytest.approx(1 / 1.3660, abs=1e-3)


def test_figures_for_given_snr() -> None:
    figures = dict(spiked_figures(4.0, [1.6, 1.2]))
    assert set(figures) == {"phase_diagram", "complexity", "hitting_times"}
    crosses = figures["phase_diagram"].axes[0].lines[-1].get_xydata()
    assert crosses[:, 1] == pytest.approx([1 / 1.6, 1 / 1.2])
    model = make_spiked_model(1.6, 4.0)
    all_overlaps = figures["complexity"].axes[0]
    marked = [
        x for line in all_overlaps.lines for x in line.get_xdata() if line.get_marker() != "None"
    ]
    assert sorted(marked) == pytest.approx(sorted(state.overlap for state in signal_states(model)))
    assert signal_state(make_spiked_model(1.2, 4.0)) is None
    slow, fast = (line.get_xydata() for line in figures["hitting_times"].axes[0].lines)
    # at the same time the overlap has grown more above the line
    assert fast[-1, 0] > 3 * slow[-1, 0]


def test_mistakes_are_named() -> None:
    with pytest.raises(SpikedModelError, match="snr = 1/Δ₂ must be positive"):
        list(spiked_figures(1.0, [-1.0]))
