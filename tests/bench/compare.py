# SPDX-License-Identifier: Apache-2.0
"""Runs one benchmark natively and through a vGPU in turn and prints ratios and what meets its target.

python3 tests/bench/compare.py [--runs 7] [--driver nvidia|simulated] [--region-mib 1024] [-- COMMAND LABEL ...]

COMMAND is started as ``COMMAND LABEL ...`` and prints one JSON object a line: label, name, value, unit. Default: bench.c
beside this file. A ratio is ours over native; the spread is native's own (max - min) / median. A row passes when its
ratio is within the target plus the spread, of the medians of at least seven runs; the time of the whole process is a row too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

import host  # noqa: E402

#: Ratio of ours to native that a row must reach; rates (unit with "/s") at least, times at most.
TARGETS = {
    "eager_add_5000": 1.00, "item_round_trip": 1.15, "event_record_query": 1.15,
    "h2d_pinned_262144k": 0.98, "d2h_pinned_262144k": 0.98, "h2d_pinned_65536k": 0.98, "d2h_pinned_65536k": 0.98,
    "h2d_pageable_262144k": 1.00, "d2h_pageable_262144k": 1.00, "h2d_pageable_65536k": 1.00,
    "d2h_pageable_65536k": 1.00, "h2d_pageable_4k": 0.90, "d2h_pageable_4k": 0.90,
    "cnn_small_train_step": 1.00, "resnet50_train_step_b32": 1.00, "resnet50_infer_b1": 1.00,
    "bert_base_infer_b1": 1.00, "bert_base_train_b8_adamw": 1.00, "graph_replay_20": 1.02,
    "dataloader_epoch_pinned": 1.05, "malloc_free_64MiB": 1.30, "first_matmul": 1.10, "process": 1.10,
    "launch_rate": 0.98, "query_behind_launches": 1.15, "query_beside_full_queue": 1.50,
}  # fmt: skip
#: What one launch may cost the application's thread, in ns: no ratio, a native launch does more.
LAUNCH_CALL_NS = 100
JUDGED_RUNS = 7


def build_bench(folder: Path) -> Path:
    """The compiled bench.c."""
    program = folder / "bench"
    source = Path(__file__).with_name("bench.c")
    subprocess.run(["cc", "-O2", "-o", str(program), str(source), "-ldl", "-pthread"], check=True)
    return program


def run_once(command: list[str], label: str, env: dict[str, str]) -> dict[str, tuple[float, str]]:
    """Figures of one run, by name."""
    begin = time.perf_counter()
    done = subprocess.run([command[0], label, *command[1:]] if len(command) == 1 else [*command[:2], label, *command[2:]],
                          env=env, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"{label}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    figures = {"process": (time.perf_counter() - begin, "s")}
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            figures[row["name"]] = (row["value"], row["unit"])
    return figures


def verdict(name: str, ours: float, unit: str, ratio: float, spread: float) -> str:
    """Whether a row meets its target, and which; empty for a row that has none."""
    if name == "launch_call":
        return f"{'pass' if ours <= LAUNCH_CALL_NS else 'MISS'} (at most {LAUNCH_CALL_NS} ns)"
    target = TARGETS.get(name)
    if target is None:
        return ""
    rate = unit.endswith("/s")
    met = ratio >= target - spread if rate else ratio <= target + spread
    return f"{'pass' if met else 'MISS'} (at {'least' if rate else 'most'} {target:.2f})"


def table(native: list[dict], ours: list[dict], judged: bool) -> int:
    """Prints the medians, their ratio, native's spread and the verdicts; returns the number of misses."""
    misses = 0
    print(f"{'figure':28}{'native':>12}{'ours':>12}  {'unit':6}{'ratio':>8}{'spread':>8}")
    for name, (_, unit) in ours[0].items():
        b = statistics.median(run[name][0] for run in ours)
        values = [run[name][0] for run in native if name in run]
        if not values:
            print(f"{name:28}{'-':>12}{b:12.4g}  {unit:6}")
            continue
        a = statistics.median(values)
        spread, ratio = ((max(values) - min(values)) / a, b / a) if a else (0, 0)
        said = verdict(name, b, unit, ratio, spread) if judged else ""
        misses += said.startswith("MISS")
        print(f"{name:28}{a:12.4g}{b:12.4g}  {unit:6}{ratio:8.3f}{spread:8.3f}  {said}".rstrip(), flush=True)
    return misses


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--driver", choices=["nvidia", "simulated"], default="simulated")
    parser.add_argument("--region-mib", type=int, default=1024)
    parser.add_argument("command", nargs="*")
    args = parser.parse_args()
    simulated = args.driver == "simulated"
    with tempfile.TemporaryDirectory() as folder, \
            host.running(folder, region_mib=args.region_mib, simulated=simulated) as running:
        command = args.command or [str(build_bench(Path(folder)))]
        native_env, our_env = dict(os.environ), running.env
        if simulated:
            native_env["LD_LIBRARY_PATH"] = str(ROOT / "orion_virt" / "_lib" / "simgpu")
        native, ours = [], []
        for _ in range(args.runs):
            native.append(run_once(command, "native", native_env))
            ours.append(run_once(command, "ours", our_env))
        print(f"{args.runs} interleaved runs, region {args.region_mib} MiB, {os.cpu_count()} CPUs, driver {args.driver}")
        judged = args.runs >= JUDGED_RUNS and not simulated
        misses = table(native, ours, judged)
        print(f"{misses} rows miss their target" if judged else
              f"not judged: that takes --driver nvidia and {JUDGED_RUNS} runs")


if __name__ == "__main__":
    main()
