"""The spiked model: what a step costs against N, exact in law and with couplings in memory."""

from dataclasses import dataclass

import numpy as np
from reporting import Section, best_seconds, core_seconds

from pipeline.kernel.arrays import NUMPY
from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.models import Drawn, SpikedTensorModel
from pipeline.theory.spiked_model import make_spiked_model

SNR, DELTA_P, STEP = 1.6, 1.0, 0.1
OWNER = np.zeros(1, dtype=np.intp)
REPEATS = 5


@dataclass(frozen=True)
class Measured:
    """A random start that descends to T on an instance of its own."""

    drawing: float  # s
    descending: float  # s
    directions: int
    instance_bytes: int


def measure(*, small: bool) -> list[Section]:
    duration = 2.0 if small else 20.0
    return [_sizes(duration, small=small), _durations(small=small)]


def descend(N: int, instances: str, duration: float, p: int = 3) -> Measured:
    """Core seconds of the fastest of several, draws and descent apart."""
    model = SpikedTensorModel(make_spiked_model(SNR, DELTA_P, p), N, instances)
    dtype = np.dtype("float32")
    stream = np.random.SeedSequence(5, spawn_key=(N,))
    best = Measured(np.inf, np.inf, 0, 0)
    for _ in range(1 if instances == "dense" else REPEATS):
        drawn: list[Drawn] = []

        def draw(drawn: list[Drawn] = drawn) -> None:
            drawn.append(model.draw((stream,), (1, 0), dtype, NUMPY))

        drawing = core_seconds(draw)
        landscape, w = drawn[0].landscape, drawn[0].starts
        if instances == "dense":  # each step costs the same
            one = best_seconds(lambda landscape=landscape, w=w: landscape.gradient(w, OWNER))
            descending = one * round(duration / STEP)
        else:
            run = GradientDescent(landscape, duration, STEP, on_equator=False)
            descending = core_seconds(lambda run=run, w=w: run.run(w, OWNER))
        if drawing + descending < best.drawing + best.descending:
            size = model.instance_bytes(dtype)
            best = Measured(drawing, descending, landscape.directions[0], size)
    return best


def _sizes(duration: float, *, small: bool) -> Section:
    steps = round(duration / STEP)
    direct = (20, 40) if small else (100, 200, 400)
    beyond = (10**4, 10**6) if small else (10**3, 10**4, 10**5, 10**6, 10**9)
    in_law = {N: descend(N, "conditional", duration) for N in (*direct, *beyond)}
    rows = []
    for N, found in in_law.items():
        whole = found.drawing + found.descending
        row = [f"{N}", f"{found.directions}", f"{1e3 * found.descending / steps:.3f}"]
        if N in direct:
            with_couplings = descend(N, "dense", duration)
            both = with_couplings.drawing + with_couplings.descending
            row += [
                f"{whole:.3f}",
                f"{1e3 * with_couplings.descending / steps:.3f}",
                f"{both:.3f}",
                f"{with_couplings.instance_bytes / 1e6:.1f}",
                f"{both / whole:.1f}",
            ]
        else:
            couplings = N**3 / 6 * 4 / 1e6
            row += [f"{whole:.3f}", "–", "–", f"{couplings:.3g} (computed)", "–"]
        rows.append(row)
    steps_of = np.array([found.descending for N, found in in_law.items() if N in beyond])
    text = (
        f"One random start, p = 3, Δ_p = {DELTA_P:g}, 1/Δ₂ = {SNR:g}, gradient descent with "
        f"η = {STEP:g} to t = {duration:g}, {steps} steps: the whole run with its draws. In law: "
        "couplings drawn as they are asked for, float64. Direct: all couplings in memory, float32; "
        "its steps are so many gradients. Between the sizes from "
        f"{beyond[0]} on a step in law costs the same within a factor of "
        f"{steps_of.max() / steps_of.min():.2f}."
    )
    columns = [
        "N", "directions", "in law: ms a step", "s a run", "direct: ms a step", "s a run",
        "couplings, MB", "direct / in law",
    ]  # fmt: skip
    return Section("A step of the spiked model", text, columns, rows)


def _durations(*, small: bool) -> Section:
    rows = []
    for p, duration in ((3, 5.0), (3, 20.0), (3, 60.0), (4, 5.0), (4, 20.0)):
        if small and duration > 5:
            continue
        found = descend(10**6, "conditional", duration, p)
        steps = round(duration / STEP)
        rows.append(
            [
                f"{p}", f"{duration:g}", f"{found.directions}",
                f"{1e3 * found.descending / steps:.3f}",
                f"{found.drawing + found.descending:.3f}",
            ]
        )  # fmt: skip
    text = (
        "The same at N = 10⁶: directions come one by one while the gradient leaves their span, and "
        "k of them have of order kᵖ couplings."
    )
    return Section(
        "Steps of longer runs", text, ["p", "T", "directions", "ms a step", "s a run"], rows
    )
