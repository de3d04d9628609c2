"""All benchmarks of the kernel, printed and written to one table: `make bench`."""

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

import bench_distribution
import bench_gradients
import bench_growth
import bench_instances
import bench_limits
import bench_pass
import bench_script
import bench_spiked
from reporting import report
from threadpoolctl import threadpool_info

BENCHMARKS = {
    "limits": bench_limits,
    "gradients": bench_gradients,
    "distribution": bench_distribution,
    "script": bench_script,
    "pass": bench_pass,
    "growth": bench_growth,
    "instances": bench_instances,
    "spiked": bench_spiked,
}
ON_REQUEST = ("instances", "spiked")  # `make bench-instances`, `make bench-spiked`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--small", action="store_true", help="sizes that only show that it works")
    parser.add_argument("--output", type=Path, help="file to write; by default only printed")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"names: expected some of {', '.join(BENCHMARKS)}, got {unknown}")
    if any(pool["num_threads"] > 1 for pool in threadpool_info()):
        parser.error("BLAS has several threads; set OPENBLAS_NUM_THREADS=1, as `make bench` does")

    start = time.perf_counter()
    sections = []
    for name, benchmark in BENCHMARKS.items():
        if name in options.names or (not options.names and name not in ON_REQUEST):
            began = time.perf_counter()
            sections += benchmark.measure(small=options.small)
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    # shown relative to the project: the file holds no machine paths
    shown = [os.path.relpath(arg) if Path(arg).is_absolute() else arg for arg in sys.argv[1:]]
    command = shlex.join(["python", "tests/benchmarks/bench_all.py", *shown])
    text = report(sections, command, time.perf_counter() - start)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
