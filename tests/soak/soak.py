# SPDX-License-Identifier: Apache-2.0
"""The fault soak: a seeded sequence of everything that goes wrong, beside neighbours who must not notice.

`soak.py --seconds 3600 --seed 7` prints the sequence as it goes, then its figures. A run that fails names its seed.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from cases import crowd  # noqa: E402
from figures import Figures  # noqa: E402
from plugs import PULL  # noqa: E402
from sequence import Event, events, options  # noqa: E402
from world import CLIENTS_OUTLIVE_ORIOND, Failed, World, running, until  # noqa: E402

BACK_SECONDS = 45     # for everything to be back: 10 are promised, but a grant whose client heard nothing of it is held for 30
RESUME_SECONDS = 20   # for a neighbour to make progress again; 1 is promised
GROWTH_MIB = 32       # of a daemon, in a soak of any length
QUIET_SECONDS = 0.6   # after an event, in which the neighbours' throughput is looked at

# Lines of level ERROR, and the faults of one event that explain them.
EXPLAINED = {
    r"the controller ended \(signal SIGKILL\) and is started again": ("controller killed",),
    r"worker \d+ cannot be taken up and was ended: it does not answer": ("worker stopped", "oriond killed"),
}


class Soak:
    """One run."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.seed = world, seed
        self.figures = Figures()
        self.history: list[str] = []
        self.nr_faults = 0

    def run(self, seconds: float) -> None:
        """Raises Failed with what was found."""
        started = time.monotonic()
        for _ in range(3):  # what is made at a first use is there from now on
            crowd(self.world, 2, "F")
        time.sleep(2)
        self.before, self.daemons = self._settled(), self.world.daemons_mib()
        for event in events(self.seed, self.world.options):
            if time.monotonic() - started > seconds:
                break
            self.history.append(f"{time.monotonic() - started:7.1f} {event}")
            print(self.history[-1], flush=True)
            self._one(event)
        self._end()

    def _settled(self) -> dict:
        """What is held when nothing has happened yet."""
        held = until(lambda: (h := self.world.held())["registered"] and h["warm workers"] == 1 and not h["passing processes"]
                     and h, BACK_SECONDS)
        for neighbour in self.world.neighbours:
            neighbour.check()
        if not held:
            raise Failed(f"the host does not come to rest: {self.world.held()}")
        return held

    def _one(self, event: Event) -> None:
        begun = time.monotonic()
        wrong: list[str] = []
        for case in event.cases:
            case.begin(self.world, self.figures)
        if event.plug:
            time.sleep(event.moment)
            wrong += PULL[event.plug](self.world, event, self.figures)
        for case in event.cases:
            case.join()
            wrong += [case.failure] if case.failure else []
        self.nr_faults += len(event.cases) + bool(event.plug)
        over = max([case.died for case in event.cases] + ([time.monotonic()] if event.plug else []))
        if wrong:
            raise Failed("\n".join(wrong))
        self._back(event, over)
        self._neighbours_go_on(event, begun, over)

    def _back(self, event: Event, over: float) -> None:
        until(lambda: self.world.excess(self.before).keys() <= {"passing processes"}, BACK_SECONDS)
        self.figures.add(f"everything is back after {event.plug or 'faults of programs'}", time.monotonic() - over)
        # The simulated card's compiler, which neighbours' workers may have started just then, is no remainder of the fault.
        if not until(lambda: not self.world.excess(self.before), BACK_SECONDS):
            raise Failed(f"not as before (then, now): {self.world.excess(self.before)}")

    def _neighbours_go_on(self, event: Event, begun: float, over: float) -> None:
        rounds = [n.progress.rounds for n in self.world.neighbours]
        time.sleep(QUIET_SECONDS)
        for neighbour, so_far in zip(self.world.neighbours, rounds):
            neighbour.check()
            if not neighbour.goes_on(so_far, RESUME_SECONDS):
                raise Failed(f"neighbour {neighbour.name} makes no progress after {event}")
            if event.plug == "oriond killed" and not CLIENTS_OUTLIVE_ORIOND:
                continue  # it is another process: there is nothing to compare with
            found = neighbour.progress.recovery(begun, over, time.monotonic())
            self.figures.add("a neighbour's throughput is back", time.monotonic() - over if found is None else found)

    # ---- the end ----

    def _end(self) -> None:
        for neighbour in self.world.neighbours:
            neighbour.check()
        self._check_memory()
        self._check_logs()

    def _check_memory(self) -> None:
        """Of daemons, which may have been started anew meanwhile, and serve the same neighbours as at the begin."""
        now = self.world.daemons_mib()
        print(", ".join(f"{name} had {was:.0f} MiB, has {now[name]:.0f}" for name, was in self.daemons.items()), flush=True)
        grown = {name: (was, now[name]) for name, was in self.daemons.items() if now[name] > was + GROWTH_MIB}
        if grown:
            raise Failed(f"daemons have grown (MiB then, now): {grown}")

    def _check_logs(self) -> None:
        logs = self.world.host.dir / "log"
        texts = [p.read_text(errors="replace") for p in sorted(logs.rglob("*.log"))] + [self.world.host.output()]
        texts += [p.read_text(errors="replace") for p in sorted(self.world.dir.glob("*.out"))]
        texts += [p.read_text(errors="replace") for p in sorted(self.world.dir.glob("*.err"))]
        for text in texts:
            if "Traceback" in text or "never retrieved" in text:
                at = text.find("Traceback")
                raise Failed(f"a traceback: {text[max(at - 500, 0) : at + 3000]}")
            bad = [line for line in text.splitlines() if re.search(r"\bERROR\b", line) and not self._is_explained(line)]
            if bad:
                raise Failed("errors in the log that no fault explains: " + "\n".join(bad[:20]))

    def _is_explained(self, line: str) -> bool:
        return any(re.search(pattern, line) and any(all(fault in event for fault in faults) for event in self.history)
                   for pattern, faults in EXPLAINED.items())


def soak(directory: Path, seconds: float, seed: int, driver: str = "simulated") -> Soak:
    """Runs it; a failure says everything that repeats it. Raises Failed."""
    chosen = options(seed, driver)
    print(f"seed {seed}: {chosen}", flush=True)
    with running(directory, chosen) as world:
        found = Soak(world, seed)
        try:
            found.run(seconds)
        except Failed as failed:
            print(world.host.output()[-8000:])
            raise Failed(f"{failed}\nseed {seed}, {driver}; the sequence:\n" + "\n".join(found.history)) from None
        finally:
            print(f"seed {seed}: {found.nr_faults} faults in {len(found.history)} events", flush=True)
            print("\n".join(found.figures.lines()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--driver", choices=("simulated", "nvidia"), default="simulated")
    parser.add_argument("--keep", type=Path, help="a folder for everything that it writes; without it a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        try:
            soak(args.keep or Path(folder), args.seconds, args.seed, args.driver)
        except Failed as failed:
            sys.exit(str(failed))


if __name__ == "__main__":
    main()
