"""A pass over X against what the machine can do."""

from dataclasses import replace
from itertools import product

import numpy as np
from bench_limits import FROM_MEMORY, gemm_rate, read_bandwidth
from reporting import Instances, Section, best_seconds

from pipeline.kernel.phase_retrieval import PhaseRetrieval

ALPHA = 3.0
BATCHES = (1, 3, 16)
IN_CACHE = 1 << 19  # bytes of X


def pass_seconds(landscape: PhaseRetrieval, batch: int) -> float:
    """Core seconds of one gradient of `batch` trajectories on one instance.

    `PhaseRetrieval.gradient` as the descents call it: `pull_back` with the response of the loss.
    """
    w, owner = batch_of_points(landscape, batch)
    return best_seconds(lambda: landscape.gradient(w, owner))


def products_seconds(landscape: PhaseRetrieval, batch: int) -> float:
    """Core seconds of the two products alone: `pull_back` with the predictions as response."""
    w, _ = batch_of_points(landscape, batch)
    return best_seconds(lambda: landscape.operators[0].pull_back(w, lambda u, _: u))


def batch_of_points(landscape: PhaseRetrieval, batch: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    w = random.standard_normal((batch, landscape.dimension))
    return w.astype(landscape.signals.dtype), np.zeros(batch, dtype=np.intp)


def measure(*, small: bool) -> list[Section]:
    return [_limits(small=small), _parts(small=small)]


def _parts(*, small: bool) -> Section:
    """Why a pass over a large X is slower than its parts."""
    sizes = (64, 128) if small else (1024, 2048, 4096)
    rows = []
    for dtype, N in product(("float64", "float32"), sizes):
        whole = Instances(N, ALPHA, 1.0, seeds=1, dtype=dtype)
        held = max(8, IN_CACHE // (N * np.dtype(dtype).itemsize))
        rows_of_X = (held, 2 * held, whole.measurements)
        landscapes = [replace(whole, alpha=count / N).draw() for count in rows_of_X]
        reading = whole.matrix_bytes / read_bandwidth(whole.matrix_bytes, dtype)
        for batch in (1, 16):
            small_pass, double_pass, measured = (pass_seconds(x, batch) for x in landscapes)
            each = (double_pass - small_pass) / held
            in_cache = small_pass + each * (whole.measurements - held)
            flops = 4 * whole.measurements * N * batch
            rows.append([
                dtype,
                f"{N}",
                f"{batch}",
                f"{1e3 * measured:.3f}",
                f"{1e3 * reading:.3f}",
                f"{1e3 * in_cache:.3f}",
                f"{measured / (reading + in_cache):.2f}",
                f"{flops / in_cache / gemm_rate(dtype):.0%}",
            ])  # fmt: skip
    text = (
        f"`reading`: X read once, at the rate of an array of its size. `in cache`: passes over "
        f"{IN_CACHE >> 10} KiB and twice that of X, which a core's cache holds, extrapolated to "
        "all of X: products, response and calls, no reading. Where a pass takes their sum (`over "
        "the sum` near 1), BLAS reads and multiplies by turns: only a kernel that fetches the "
        "next rows while it multiplies could reach the larger of the two. `in cache, of GEMM`: "
        "what a pass could reach if X cost nothing to read."
    )
    columns = [
        "dtype", "N", "batch", "pass, ms", "reading, ms", "in cache, ms", "over the sum",
        "in cache, of GEMM",
    ]  # fmt: skip
    return Section("Where the time of a pass goes", text, columns, rows)


def _limits(*, small: bool) -> Section:
    sizes = (64, 128) if small else (256, 512, 1024, 2048, 4096)
    rows = []
    for dtype, N in product(("float64", "float32"), sizes):
        instances = Instances(N, ALPHA, 1.0, seeds=1, dtype=dtype)
        landscape = instances.draw()
        rows += [_row(instances, landscape, batch, small=small) for batch in BATCHES]
    text = (
        f"α = {ALPHA:g}, a = 1, one instance: one gradient of each trajectory in the batch, as the "
        "descents ask for it. Bytes: one read of X. Flops: 4 M N for each trajectory. "
        "`of memory`: share of the bandwidth of reading 1 GiB; `of this size`: of reading an "
        "array as large as X, which a cache may hold. `products alone`: rate of the same pass with "
        "the predictions themselves as response. Targets of issue 3, at N ≥ 2048: batch 1 at 75 % "
        "of the read bandwidth, batch 16 at 60 % of the GEMM rate."
    )
    columns = [
        "dtype", "N", "X, MB", "batch", "ms", "GB/s", "of memory", "of this size", "Gflop/s",
        "of GEMM", "products alone, Gflop/s",
    ]  # fmt: skip
    return Section("A pass against the limits", text, columns, rows)


def _row(instances: Instances, landscape: PhaseRetrieval, batch: int, *, small: bool) -> list[str]:
    seconds = pass_seconds(landscape, batch)
    dtype, size = instances.dtype, instances.matrix_bytes
    rate = size / seconds
    flops = 4 * instances.measurements * instances.N * batch
    from_memory = read_bandwidth(FROM_MEMORY >> (5 if small else 0), dtype)
    return [
        dtype,
        f"{instances.N}",
        f"{size / 1e6:.1f}",
        f"{batch}",
        f"{1e3 * seconds:.3f}",
        f"{rate / 1e9:.1f}",
        f"{rate / from_memory:.0%}",
        f"{rate / read_bandwidth(size, dtype):.0%}",
        f"{flops / seconds / 1e9:.1f}",
        f"{flops / seconds / gemm_rate(dtype):.0%}",
        f"{flops / products_seconds(landscape, batch) / 1e9:.1f}",
    ]
