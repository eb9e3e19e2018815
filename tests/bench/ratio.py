# SPDX-License-Identifier: Apache-2.0
"""Compute limits: what share of a card processes get, beside what ORION_RATIO promised them.

python3 tests/bench/ratio.py [--driver nvidia|simulated] [--seconds 10]

A share is a load's kernels a second in the mix over those of the same load alone on a vGPU, in the same run. Prints a line for
each load of each mix; then what limits cost a process that is alone, and how long one kernel of a light tenant takes beside a
heavy one. Ends with 1 when a share is more than 3 points off its promise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

import host as hosts  # noqa: E402
import programs  # noqa: E402

POINTS = 3.0
LIMITED, STRICT = "[server]\ncompute_limits = on\n", "[server]\ncompute_limits = strict\n"


@dataclass(frozen=True)
class Load:
    """A promise in percent, the length of a kernel, and how kernels are launched."""

    ratio: int
    kernel_ms: float
    mode: str = "launch"

    def __str__(self) -> str:
        return f"{self.ratio:3} % {self.kernel_ms:g} ms {self.mode}"


MIXES = [
    [Load(30, 1), Load(70, 1)],
    [Load(10, 1), Load(90, 1)],
    [Load(25, 0.1), Load(25, 5), Load(50, 50)],
    [Load(30, 50), Load(70, 0.1)],
    [Load(30, 0.1), Load(70, 50)],
    [Load(30, 1, "graph"), Load(70, 1)],
]


class Bench:
    """One host side and the compiled load."""

    def __init__(self, host: hosts.Host, load: str, iterations_per_ms: float) -> None:
        self._host, self._load, self._per_ms = host, load, iterations_per_ms
        self._alone: dict[tuple[float, str], float] = {}  # kernels a second, by length and mode

    def start(self, load: Load, seconds: float, **variables: object) -> subprocess.Popen[str]:
        """The process, ready."""
        argv = [self._load, str(seconds), str(max(1, round(load.kernel_ms * self._per_ms))), load.mode]
        env = self._host.env | {k: str(v) for k, v in variables.items()}
        process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        if process.stdout.readline() != "READY\n":
            raise SystemExit(f"{load}: did not start\n{self._host.output()}")
        return process

    def together(self, processes: list[subprocess.Popen[str]]) -> list[dict[str, float]]:
        """Lets them begin at once; what each printed."""
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
        if not all(result["right"] for result in found):
            raise SystemExit(f"wrong results: {found}")
        return found

    def rate(self, load: Load, seconds: float, **variables: object) -> float:
        """Kernels a second of one that is alone."""
        found = self.together([self.start(load, seconds, **variables)])[0]
        return found["kernels"] / found["seconds"]

    def mix(self, loads: list[Load], seconds: float) -> float:
        """Prints each load's share; returns the largest distance from a promise, in points."""
        for load in loads:
            key = (load.kernel_ms, load.mode)
            if key not in self._alone:
                self._alone[key] = self.rate(load, seconds / 3, ORION_RATIO=load.ratio)
        results = self.together([self.start(load, seconds, ORION_RATIO=load.ratio) for load in loads])
        worst = 0.0
        for load, result in zip(loads, results, strict=True):
            alone = self._alone[load.kernel_ms, load.mode]
            share = 100 * result["kernels"] / result["seconds"] / alone
            worst = max(worst, abs(share - load.ratio))
            print(f"  {load!s:24} alone {alone:9.1f}/s  share {share:6.2f} %", flush=True)
        return worst


def per_ms(load: str, env: dict[str, str] | None) -> float:
    """Iterations of the kernel's loop in a millisecond, natively."""
    done = subprocess.run([load, "2", "20000"], input="go\n", env=env, capture_output=True, text=True, check=True, timeout=180)
    found = json.loads(done.stdout.splitlines()[1])
    return 20000 * found["kernels"] / found["seconds"] / 1000


def native_env(simulated: bool) -> dict[str, str]:
    env = programs.without_vgpu()
    return env | {"LD_LIBRARY_PATH": str(hosts.LIB / "simgpu")} if simulated else env


def light_beside(bench: Bench, seconds: float, label: str, **variables: object) -> None:
    """One kernel of 0.1 ms every 20 ms, beside kernels of 5 ms."""
    heavy, light = bench.start(Load(50, 5), seconds, **variables), bench.start(Load(50, 0.1, "light"), seconds, **variables)
    result = bench.together([heavy, light])[1]
    print(f"  light beside heavy, {label}: median {result['median_ms']:.2f} ms, 99th percentile {result['p99_ms']:.2f} ms", flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", choices=["nvidia", "simulated"], default="simulated")
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    simulated, worst = args.driver == "simulated", 0.0
    with tempfile.TemporaryDirectory() as folder:
        load = str(programs.compiled(folder, "load"))
        speed = per_ms(load, native_env(simulated))
        with hosts.running(Path(folder) / "on", config=LIMITED, region_mib=256, simulated=simulated) as host:
            bench = Bench(host, load, speed)
            for loads in MIXES:
                print(" / ".join(str(load.ratio) for load in loads), flush=True)
                worst = max(worst, bench.mix(loads, args.seconds))
            limited = bench.rate(Load(100, 0.02), 4, ORION_RATIO=100)
            light_beside(bench, 5, "with limits", ORION_RATIO=50)
        with hosts.running(Path(folder) / "off", region_mib=256, simulated=simulated) as host:
            bench = Bench(host, load, speed)
            free, whole = bench.rate(Load(100, 0.02), 4), bench.rate(Load(100, 1), 4)
            light_beside(bench, 5, "without")
        with hosts.running(Path(folder) / "strict", config=STRICT, region_mib=256, simulated=simulated) as host:
            bench = Bench(host, load, speed)
            held = bench.rate(Load(30, 1), args.seconds, ORION_RATIO=30)
            print(f"  30 % strict, alone: {100 * held / whole:.1f} % of what it gets without limits", flush=True)
        print(f"  alone, kernels of 0.02 ms: {limited:.0f}/s with limits, {free:.0f}/s without, ratio {limited / free:.3f}")
    print(f"worst: {worst:.2f} points from the promise (at most {POINTS:g})")
    if not simulated and worst > POINTS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
