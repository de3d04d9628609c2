"""Closed equations of the spiked model: the spec's numbers, identities, order of convergence."""

import numpy as np
import pytest

from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.spiked_conditional import draw_conditional
from pipeline.theory.spiked_descent import Dynamics, descend, descend_from_equator
from pipeline.theory.spiked_flow import follow_flow, follow_flow_from_equator
from pipeline.theory.spiked_growth import (
    fit_growth_rate,
    growth_rate,
    hitting_time,
    hitting_times,
    line_of_rates,
    measure_line,
    overlap_spread,
    threshold_growth_rate,
)
from pipeline.theory.spiked_landscape import gradient_flow_line, signal_state
from pipeline.theory.spiked_model import SpikedModel, SpikedModelError, make_spiked_model

# Δ_p, Δ₂, m(0), t, and m, μ, e₂, e_p there (spec, section 2)
TABLE = [
    (1.0, 0.4, 0.1, 1.0, (0.374426, 3.50592, -1.17883, -0.382757)),
    (1.0, 0.4, 0.1, 5.0, (0.824946, 4.66856, -1.60614, -0.485428)),
    (1.0, 0.5, 1e-4, 10.0, (9.80712e-4, 3.84803, -1.12936, -0.529775)),
    (4.0, 0.6, 0.1, 10.0, (0.637150, 2.98947, -1.26029, -0.156296)),
]


def last(found: Dynamics) -> tuple[float, ...]:
    names = ("overlap", "multiplier", "matrix_energy", "tensor_energy")
    return tuple(float(getattr(found, name)[-1]) for name in names)


@pytest.mark.parametrize(("delta_p", "delta_2", "overlap", "time", "expected"), TABLE)
def test_the_flow_of_the_spec(
    delta_p: float, delta_2: float, overlap: float, time: float, expected: tuple[float, ...]
) -> None:
    model = make_spiked_model(1 / delta_2, delta_p)
    found = follow_flow(model, overlap, duration=time, step=0.05)
    assert last(found) == pytest.approx(expected, rel=4e-5)
    assert found.time[-1] == time


def test_the_descent_of_the_spec() -> None:
    found = descend(SpikedModel(1.6, 0.25), 0.1, duration=10.0, step=0.1)
    assert found.overlap[[10, 100]] == pytest.approx([0.2253372324, 0.6050851891], abs=1e-9)
    assert found.multiplier[[10, 100]] == pytest.approx([2.129762025, 2.918696846], abs=1e-9)


@pytest.mark.parametrize("model", [SpikedModel(1.6, 0.25), SpikedModel(2.5, 1.0, 4)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, -0.3])
def test_identities_along_a_descent(model: SpikedModel, overlap: float) -> None:
    found = descend(model, overlap, duration=4.0, step=0.1)
    assert found.multiplier[0] == pytest.approx(overlap * float(model.slope(overlap)))
    energy = found.matrix_energy + found.tensor_energy
    assert energy[0] == pytest.approx(-float(model.covariance(overlap)), abs=1e-15)
    parts = -2 * found.matrix_energy - model.order * found.tensor_energy
    assert found.multiplier == pytest.approx(parts, abs=1e-13)
    assert (np.diff(energy) < 0).all()
    assert np.array_equal(found.correlation, found.correlation.T)
    assert (np.diagonal(found.correlation) == 1).all()
    assert np.linalg.eigvalsh(found.correlation)[0] > -1e-12  # a matrix of scalar products
    assert np.triu(found.response, 1).max() == 0


def test_from_the_equator_the_response_to_the_start_is_the_correlation_with_it() -> None:
    found = follow_flow(make_spiked_model(2.0, 1.0), 0.0, duration=1.0, step=0.0125)
    assert found.correlation[-1, 0] == pytest.approx(0.568136, abs=5e-7)
    assert found.response[:, 0] == pytest.approx(found.correlation[:, 0], abs=1e-5)
    assert (found.overlap == 0).all()


def test_the_flow_is_of_third_order_and_knows_its_error() -> None:
    model = make_spiked_model(2.5, 1.0)
    exact = follow_flow(model, 0.1, duration=2.0, step=0.0125)
    errors, claimed = [], []
    for step in (0.1, 0.05, 0.025):
        found = follow_flow(model, 0.1, duration=2.0, step=step)
        errors.append(abs(found.overlap[-1] - exact.overlap[-1]))
        claimed.append(found.error)
        assert np.abs(found.multiplier[-1] - exact.multiplier[-1]) < found.error
    slopes = np.diff(np.log2(errors))
    assert (slopes < -2.7).all()
    assert (np.array(errors) < claimed).all()


def test_flow_and_descent_end_in_the_signal_state() -> None:
    model = make_spiked_model(2.5, 1.0)
    state = signal_state(model)
    assert state is not None
    for found in (
        descend(model, 0.1, duration=40.0, step=0.2),
        follow_flow(model, 0.1, duration=20.0, step=0.1),
    ):
        assert found.overlap[-1] == pytest.approx(state.overlap, abs=1e-4)
        assert found.multiplier[-1] == pytest.approx(state.multiplier, abs=1e-4)


def test_the_gain_is_that_of_a_small_overlap() -> None:
    model = make_spiked_model(2.0, 1.0)
    gain = follow_flow_from_equator(model, duration=5.0, step=0.1)
    small = follow_flow(model, 1e-8, duration=5.0, step=0.1)
    assert gain.overlap == pytest.approx(small.overlap / 1e-8, rel=1e-5)
    assert gain.multiplier == pytest.approx(small.multiplier, abs=1e-12)
    assert gain.correlation == pytest.approx(small.correlation, abs=1e-12)


@pytest.mark.parametrize(("delta_p", "snr"), [(4.0, 1.6), (4.0, 1.8), (1.0, 2.8)])
def test_growth_rate_and_multiplier_add_up(delta_p: float, snr: float) -> None:
    model = make_spiked_model(snr, delta_p)
    gain = descend_from_equator(model, duration=160.0, step=0.2)
    rate = (gain.overlap[-1] / gain.overlap[-2] - 1) / 0.2  # a step multiplies m by 1 + h r
    together = snr + model.noise_curvature / snr
    assert rate + gain.multiplier[-2] == pytest.approx(together, abs=1e-3)
    assert threshold_growth_rate(model) == pytest.approx(together - 2 * model.sigma)


@pytest.mark.parametrize(("delta_p", "snrs"), [(4.0, (1.6, 1.7, 1.8)), (1.0, (2.4, 2.5, 2.6))])
def test_the_gradient_flow_line_from_the_scaling_of_hitting_times(
    delta_p: float, snrs: tuple[float, ...]
) -> None:
    line = measure_line(delta_p, snrs, duration=120.0, step=0.2)
    assert line == pytest.approx(gradient_flow_line(delta_p), rel=0.03)


def test_the_rate_vanishes_below_the_line() -> None:
    above, below = (
        growth_rate(descend_from_equator(make_spiked_model(snr, 1.0), duration=120.0, step=0.2))
        for snr in (2.6, 1.8)
    )
    assert above > 0.07
    assert abs(below) < 0.005
    assert threshold_growth_rate(make_spiked_model(1.8, 1.0)) == 0
    with pytest.raises(SpikedModelError, match=r"grow exponentially at each snr, got 1\.6"):
        measure_line(1.0, (1.6, 2.4), duration=60.0, step=0.2)


def test_hitting_times_are_those_of_the_gain() -> None:
    gain = descend_from_equator(make_spiked_model(2.5, 1.0), duration=20.0, step=0.1)
    times = hitting_times(gain, [0.0, np.log(gain.overlap[50]), 100.0])
    assert times[:2] == pytest.approx([0, gain.time[50]])
    assert np.isnan(times[2])


def test_the_hitting_time_of_a_start_that_is_not_small() -> None:
    model = make_spiked_model(2.5, 1.0)
    found = descend(model, 0.1, duration=4.0, step=0.1)
    assert hitting_time(model, 0.1, found.overlap[20], duration=4.0, step=0.1) == pytest.approx(2.0)
    between = (found.overlap[20] + found.overlap[21]) / 2
    assert hitting_time(model, 0.1, between, duration=4.0, step=0.1) == pytest.approx(2.05)
    assert hitting_time(model, 0.1, 0.1, duration=4.0, step=0.1) == 0
    assert hitting_time(model, 0.1, 0.9, duration=4.0, step=0.1) == np.inf
    # small starts take as long as the linear equations say
    small = hitting_time(model, 1e-6, 1e-4, duration=40.0, step=0.1)
    gain = descend_from_equator(model, duration=40.0, step=0.1)
    assert small == pytest.approx(float(hitting_times(gain, np.log(100.0))), abs=0.05)


def test_rates_and_lines_are_read_off_hitting_times() -> None:
    hits = np.geomspace(5.0, 60.0, 8)
    assert fit_growth_rate(0.07 * hits + 1.3 * np.cbrt(hits) + 0.4, hits) == pytest.approx(0.07)
    snrs = np.array([1.5, 1.8, 2.4])
    assert line_of_rates(snrs, (snrs - 1.3) ** 2 / snrs) == pytest.approx(1.3)


def test_the_spread_of_random_starts_is_that_of_simulations() -> None:
    """Variance of √N m over 150 runs at N = 10^8; half of it is not there at the start."""
    model, count = make_spiked_model(1.8, 1.0), 150
    gain = descend_from_equator(model, duration=4.5, step=0.15)
    spread = overlap_spread(model, gain)
    assert spread[0] == pytest.approx(1.0)
    assert (spread >= np.abs(gain.overlap) - 1e-12).all()
    streams = [np.random.SeedSequence(11, spawn_key=(k,)) for k in range(count)]
    landscape = draw_conditional(streams, model=model, dimension=10**8, width=64)
    descent = GradientDescent(landscape, 4.5, 0.15, on_equator=False, recovered_overlap=1.0)
    owner = np.arange(count)
    run = descent.run(landscape.draw_starts(streams), owner)
    variance = 1e8 * np.mean(landscape.overlap(run.w, owner) ** 2)
    assert variance == pytest.approx(spread[-1] ** 2, rel=3 * np.sqrt(2 / count))
    assert variance > (1 + 3 * np.sqrt(2 / count)) * gain.overlap[-1] ** 2


@pytest.mark.parametrize(
    ("overlap", "duration", "step", "said"),
    [
        (1.5, 1.0, 0.1, r"m\(0\) must be in \[-1, 1\], got 1.5"),
        (0.1, 1.0, 0.3, "whole steps, got 1.0 with steps of 0.3"),
        (0.1, 1e6, 0.1, "whole steps, got 1000000.0"),
        (0.1, 1.0, 0.0, "must be positive, got 1.0 and 0.0"),
    ],
)
def test_descents_that_cannot_be(overlap: float, duration: float, step: float, said: str) -> None:
    model = SpikedModel(1.6, 0.25)
    for follow in (descend, follow_flow):
        with pytest.raises(SpikedModelError, match=said):
            follow(model, overlap, duration=duration, step=step)


def test_a_flow_that_takes_too_long_steps_or_too_many() -> None:
    model = SpikedModel(1.6, 0.25)
    with pytest.raises(SpikedModelError, match=r"below 2/\(μ \+ 2σ\) = .*, got 0.5"):
        follow_flow(model, 0.1, duration=10.0, step=0.5)
    with pytest.raises(SpikedModelError, match=r"at most 2500 steps, got 300\.0 with steps of"):
        follow_flow(model, 0.1, duration=300.0, step=0.1)
