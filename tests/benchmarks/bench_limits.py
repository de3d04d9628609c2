"""What the machine can do on one core: read memory, multiply matrices."""

import functools

import numpy as np
from reporting import Section, best_seconds

FROM_MEMORY = 1 << 30  # bytes; more than the caches of one machine


def read_ways(size: int, dtype: str) -> dict[str, float]:
    """Bytes per core second of several ways to read `size` bytes once, in order."""
    width = 1024
    rows = max(1, size // (width * np.dtype(dtype).itemsize))
    # written, not np.zeros: unwritten pages would all be the one page of zeros
    matrix = np.full((rows, width), 0.5, dtype=dtype)
    flat = matrix.ravel()
    right, left = np.ones(width, dtype=dtype), np.ones(rows, dtype=dtype)
    words = flat.view(np.uint64)
    ways = {
        "dot x·x": lambda: flat @ flat,
        "gemv A u": lambda: matrix @ right,
        "gemv Aᵀ v": lambda: left @ matrix,
        "max of integers": words.max,
        "or of integers": lambda: np.bitwise_or.reduce(words),
        "sum": flat.sum,
    }
    return {name: matrix.nbytes / best_seconds(way) for name, way in ways.items()}


@functools.cache
def read_bandwidth(size: int, dtype: str) -> float:
    """Bytes per core second of reading `size` bytes once, by the best of several ways."""
    return max(read_ways(size, dtype).values())


@functools.cache
def gemm_rate(dtype: str) -> float:
    """Flops per core second of a large square matrix product."""
    n = 2048
    left, right, out = (np.full((n, n), 0.5, dtype=dtype) for _ in range(3))
    return 2 * n**3 / best_seconds(lambda: np.matmul(left, right, out=out), spend=1.0)


def measure(*, small: bool) -> list[Section]:
    rows = []
    for dtype in ("float64", "float32"):
        ways = read_ways(FROM_MEMORY >> (5 if small else 0), dtype)
        best = max(ways, key=ways.__getitem__)
        others = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in ways.items())
        rows.append(
            [dtype, f"{ways[best] / 1e9:.1f} ({best})", f"{gemm_rate(dtype) / 1e9:.0f}", others]
        )
    text = (
        "One core, BLAS on one thread. Read bandwidth: an array of 1 GiB read once, fastest of "
        "several ways. GEMM: product of two 2048×2048 matrices."
    )
    columns = ["dtype", "read GB/s", "GEMM Gflop/s", "ways to read, GB/s"]
    return [Section("Limits of the machine", text, columns, rows)]
