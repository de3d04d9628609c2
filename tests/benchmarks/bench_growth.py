"""How the time of a pass and the memory of a block grow."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product

import numpy as np
from bench_pass import pass_seconds
from reporting import Instances, Section, own_peak_bytes

from pipeline.kernel.block import Dynamics, Task, run_block
from pipeline.kernel.inits import INITS
from pipeline.kernel.models import PhaseRetrievalModel


def measure(*, small: bool) -> list[Section]:
    return [_time(small=small), _memory(small=small)]


def _time(*, small: bool) -> Section:
    shrink = 16 if small else 1
    sizes = [(N // shrink, 3.0) for N in (512, 1024, 2048, 4096)]
    controls = [(1024 // shrink, alpha) for alpha in (1.5, 3.0, 6.0, 12.0)]
    batches = (1, 16)
    rows = []
    for dtype in ("float64", "float32"):
        in_size = np.array([_seconds(*case, dtype, batches) for case in sizes])
        in_control = np.array([_seconds(*case, dtype, batches) for case in controls])
        for k, batch in enumerate(batches):
            rows.append([
                dtype,
                f"{batch}",
                _exponent([N for N, _ in sizes], in_size[:, k]),
                " / ".join(f"{1e3 * seconds:.3g}" for seconds in in_size[:, k]),
                _exponent([alpha for _, alpha in controls], in_control[:, k]),
                " / ".join(f"{1e3 * seconds:.3g}" for seconds in in_control[:, k]),
            ])  # fmt: skip
    text = (
        "Least-squares exponents of the time of a pass, expected 2 in N and 1 in α. N = "
        + ", ".join(str(N) for N, _ in sizes)
        + " at α = 3; α = "
        + ", ".join(f"{alpha:g}" for _, alpha in controls)
        + f" at N = {controls[0][0]}. The exponent is larger where X outgrows a cache on the way."
    )
    columns = ["dtype", "batch", "exponent in N", "ms at each N", "exponent in α", "ms at each α"]
    return Section("Growth of the time of a pass", text, columns, rows)


def _seconds(N: int, alpha: float, dtype: str, batches: tuple[int, ...]) -> list[float]:
    """Core seconds of a pass, for each batch."""
    landscape = Instances(N, alpha, 1.0, seeds=1, dtype=dtype).draw()
    return [pass_seconds(landscape, batch) for batch in batches]


def _exponent(x: Sequence[float], y: np.ndarray) -> str:
    return f"{np.polyfit(np.log(x), np.log(y), 1)[0]:.2f}"


def _memory(*, small: bool) -> Section:
    # the baseline has loaded the same code and BLAS, and run a block of the smallest size
    baseline = Instances(N=130, alpha=3.0, a=1.0, seeds=1, dtype="float64")
    floor = _peak_bytes(baseline)
    sizes = (256,) if small else (512, 1024, 2048)
    rows = []
    for N, dtype, replicas in product(sizes, ("float64", "float32"), (1, 16)):
        instances = Instances(N, 3.0, 1.0, seeds=1, replicas=replicas, dtype=dtype)
        peak = _peak_bytes(instances) - floor
        beside = (peak - instances.matrix_bytes) / 1e6
        rows.append([
            f"{N}", dtype, f"{replicas}", f"{instances.matrix_bytes / 1e6:.1f}",
            f"{peak / 1e6:.1f}", f"{peak / instances.matrix_bytes:.2f}", f"{beside:.1f}",
        ])  # fmt: skip
    text = (
        "Largest resident size of a process that runs one block of one instance (α = 3, a = 1, "
        f"{len(INITS)} inits, T = 1), less that of one that runs a block of N = {baseline.N} "
        f"({floor / 1e6:.0f} MB)."
    )
    columns = [
        "N", "dtype", "replicas", "X, MB", "block, MB", "ratio to X", "beside X, MB",
    ]  # fmt: skip
    return Section("Memory of a block", text, columns, rows)


def _peak_bytes(instances: Instances) -> int:
    command = [sys.executable, __file__, json.dumps(asdict(instances))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def _run_and_print_peak(instances: Instances) -> None:
    dynamics = Dynamics("flow", 1.0, 1e-2, 0.02, 1.0, instances.dtype)
    run_block(
        Task(
            PhaseRetrievalModel(instances.a, instances.N, instances.measurements),
            instances.streams, INITS, dynamics,
            replicas=instances.replicas,
        )
    )  # fmt: skip
    print(own_peak_bytes())


if __name__ == "__main__":
    _run_and_print_peak(Instances(**json.loads(sys.argv[1])))
