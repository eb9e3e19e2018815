# SPDX-License-Identifier: Apache-2.0
"""Runs one benchmark natively and through a vGPU in turn and prints ratios.

python3 tests/bench/compare.py [--runs 7] [--driver nvidia|simulated] [--region-mib 1024] [-- COMMAND LABEL ...]

COMMAND is started as ``COMMAND LABEL ...`` and prints one JSON object a line: label, name, value, unit. Default: bench.c
beside this file. A ratio is ours over native; the spread is native's own (max - min) / median.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

import host  # noqa: E402


def build_bench(folder: Path) -> Path:
    """The compiled bench.c."""
    program = folder / "bench"
    source = Path(__file__).with_name("bench.c")
    subprocess.run(["cc", "-O2", "-o", str(program), str(source), "-ldl"], check=True)
    return program


def run_once(command: list[str], label: str, env: dict[str, str]) -> dict[str, tuple[float, str]]:
    """Figures of one run, by name."""
    done = subprocess.run([command[0], label, *command[1:]] if len(command) == 1 else [*command[:2], label, *command[2:]],
                          env=env, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"{label}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    figures = {}
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            figures[row["name"]] = (row["value"], row["unit"])
    return figures


def table(native: list[dict], ours: list[dict]) -> None:
    """Prints the medians, their ratio and native's spread."""
    print(f"{'figure':28}{'native':>12}{'ours':>12}  {'unit':6}{'ratio':>8}{'spread':>8}")
    for name, (_, unit) in ours[0].items():
        b = statistics.median(run[name][0] for run in ours)
        values = [run[name][0] for run in native if name in run]
        if not values:
            print(f"{name:28}{'-':>12}{b:12.4g}  {unit:6}")
            continue
        a = statistics.median(values)
        spread = (max(values) - min(values)) / a if a else 0
        print(f"{name:28}{a:12.4g}{b:12.4g}  {unit:6}{b / a if a else 0:8.3f}{spread:8.3f}", flush=True)


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
        table(native, ours)


if __name__ == "__main__":
    main()
