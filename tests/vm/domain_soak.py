# SPDX-License-Identifier: Apache-2.0
"""The soak's second part: a domain whose QEMU, kernel, programs and daemons end at random moments, beside one that computes on.

`domain_soak.py --seconds 900 --seed 7` prints the sequence as it goes, then its figures. A failure names the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
sys.path.append(str(Path(__file__).resolve().parents[1] / "soak"))

from figures import Figures  # noqa: E402

from vm import life  # noqa: E402
from vm.conftest import CACHE, SETTINGS, SHM_MIB  # noqa: E402
from vm.harness import Guest, Oriond, PrivateHost, PrivateLibvirt  # noqa: E402
from vm.stage import Setup, eventually  # noqa: E402

UNSEEN_SECONDS = 300  # until a guest whose reset nobody saw has a network again, and its kernel is asked
GONE_SECONDS = 30   # for what a dead guest had; 10 are promised, on a machine that has not an emulator for a neighbour
MOMENTS = {"early": (0.0, 0.7), "at work": (0.0, 0.5), "at boot": (0.0, 7.0)}


@dataclass
class Domains:
    """Two guests: one is hit, the other computes on. ``before``: what is held while nothing happens."""

    setup: Setup
    hit: Guest = field(init=False)
    calm: Guest = field(init=False)
    figures: Figures = field(default_factory=Figures)
    history: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        directory = self.setup.host.state
        self.calm = life.carried(self.setup.libvirt, directory, "calm")
        self.hit = life.carried(self.setup.libvirt, directory, "hit", on_reboot="restart")

    # ---- what is there ----

    def channels(self, guest: Guest) -> list[dict[str, Any]]:
        return [c for c in self.setup.oriond.ask("status")["channels"] if c["domain"] == guest.uuid]

    def held(self) -> dict[str, Any]:
        status = self.setup.oriond.ask("status")
        return {
            "channels": {name: len(self.channels(guest)) for name, guest in (("calm", self.calm), ("hit", self.hit))},
            "extents": sorted((r["uuid"], r["extents_used"]) for r in status["regions"]),
            "regions": self.setup.regions(), "warm workers": status["warm_workers"], "descriptors": status["fds"],
            "registered": status["registered"],
        }

    def _is_back(self, before: dict[str, Any]) -> bool:
        with contextlib.suppress(OSError, KeyError):
            now = self.held()
            return now["descriptors"] <= before["descriptors"] and now | {"descriptors": 0} == before | {"descriptors": 0}
        return False

    # ---- a round ----

    def begin(self) -> None:
        life.up(self.setup, self.calm)
        life.begin(self.calm)
        life.up(self.setup, self.hit)
        life.compute(self.hit)
        eventually(lambda: not self.channels(self.hit) and self.held()["warm workers"] == 1, "no rest at the start", GONE_SECONDS)
        self.before = self.held()

    def round(self, fault: str, when: str, rng: random.Random) -> None:
        """A program begins in the guest; the fault comes while it starts, while it computes, or while its guest boots anew."""
        moment = rng.uniform(*MOMENTS[when])
        self.history.append(f"{fault}, {when} {moment:.2f}")
        print(self.history[-1], flush=True)
        if when == "at boot":
            self.setup.libvirt.virsh("destroy", self.hit.config.name)
            self.hit.close()
            self.setup.libvirt.virsh("start", self.hit.config.name)
        elif when == "early":
            self.hit.run(f"rm -f /tmp/status; {life.steady('status')} >/tmp/status.out 2>&1 &")
        else:
            life.begin(self.hit)
        time.sleep(moment)
        FAULTS[fault](self)
        life.goes_on(self.calm)
        self._all_back()

    def _all_back(self) -> None:
        """The guest runs and computes again, and with that program's end everything is as before."""
        if self.setup.oriond.domain(self.hit.config.name).get("state") != "running":
            self.hit.close()
            self.setup.libvirt.virsh("start", self.hit.config.name)
        if not self.hit.connected:
            self.hit.wait_ready()
            life.ready(self.setup, self.hit)
        self.hit.run("killall -9 steady", user="root")
        life.compute(self.hit)
        ended = time.monotonic()
        if not _wait(lambda: self._is_back(self.before), GONE_SECONDS):
            raise AssertionError(f"not as before: {self.before}, now {self.held()}")
        self.figures.add("a program has ended, everything is as before", time.monotonic() - ended)

    def gone(self, name: str, since: float, region: bool, seconds: float = GONE_SECONDS) -> None:
        """Waits for the end of all workers of the guest that was hit, and of its region."""
        file = f"orion-{self.hit.uuid}"
        eventually(lambda: not self.channels(self.hit), f"{name}: a worker is left", seconds)
        self.figures.add(f"{name}: its workers are gone", time.monotonic() - since)
        if region:
            eventually(lambda: file not in self.setup.regions(), f"{name}: its region is left", GONE_SECONDS)
            self.figures.add(f"{name}: its region is gone", time.monotonic() - since)

    def end(self) -> None:
        life.goes_on(self.calm)
        said = self.setup.oriond.output()
        assert "Traceback" not in said, said[max(said.find("Traceback") - 500, 0):][:3000]
        bad = [line for line in said.splitlines() if re.search(r"\bERROR\b", line)]
        assert not bad, "\n".join(bad[:20])

    def close(self) -> None:
        for guest in (self.hit, self.calm):
            guest.destroy()


def _wait(what: Callable[[], bool], seconds: float) -> bool:
    with contextlib.suppress(AssertionError):
        eventually(what, "", seconds)
        return True
    return False


# ---- what is done ----


def _kill_qemu(domains: Domains) -> None:
    domains.hit.close()
    pid = domains.setup.host.run(["cat", f"/run/libvirt/qemu/{domains.hit.config.name}.pid"]).stdout.strip()
    domains.setup.host.run(["kill", "-KILL", pid], check=True)


def _qemu_killed(domains: Domains) -> None:
    _kill_qemu(domains)
    domains.gone("QEMU killed", time.monotonic(), region=True)
    eventually(lambda: domains.setup.oriond.domain(domains.hit.config.name).get("state") == "shut off", "it is taken for alive", GONE_SECONDS)


def _qemu_killed_without_oriond(domains: Domains) -> None:
    domains.setup.oriond.stop(signal.SIGKILL)
    _kill_qemu(domains)
    domains.setup.oriond.start()
    domains.gone("QEMU killed while oriond was away", time.monotonic(), region=True)


def _qemu_killed_without_libvirtd(domains: Domains) -> None:
    domains.setup.libvirt.kill()
    _kill_qemu(domains)
    domains.gone("QEMU killed while libvirtd was away", time.monotonic(), region=True)
    domains.setup.libvirt.launch()
    eventually(lambda: domains.setup.oriond.domain(domains.hit.config.name).get("state") == "shut off", "it is taken for alive", GONE_SECONDS)


def _destroyed(domains: Domains) -> None:
    domains.hit.close()
    domains.setup.libvirt.virsh("destroy", domains.hit.config.name)
    domains.gone("virsh destroy", time.monotonic(), region=True)


def _reset(domains: Domains) -> None:
    domains.hit.close()
    domains.setup.libvirt.virsh("reset", domains.hit.config.name)
    domains.gone("virsh reset", time.monotonic(), region=False)


def _reset_without_oriond(domains: Domains) -> None:
    domains.setup.oriond.stop(signal.SIGKILL)
    domains.hit.close()
    domains.setup.libvirt.virsh("reset", domains.hit.config.name)
    domains.setup.oriond.start()
    domains.gone("reset while oriond was away", time.monotonic(), region=False, seconds=UNSEEN_SECONDS)


def _reset_without_libvirtd(domains: Domains) -> None:
    domains.setup.libvirt.kill()
    domains.hit.run("(sleep 0.2; echo b >/proc/sysrq-trigger) >/dev/null 2>&1 &", user="root")
    domains.hit.close()
    time.sleep(2)
    domains.setup.libvirt.launch()
    domains.gone("reset while libvirtd was away", time.monotonic(), region=False, seconds=UNSEEN_SECONDS)


def _program_killed(domains: Domains) -> None:
    domains.hit.run("killall -9 steady", user="root")
    domains.gone("its program killed", time.monotonic(), region=False)


def _worker_killed(domains: Domains) -> None:
    found = domains.channels(domains.hit)
    if not found:
        return  # it has none yet
    domains.setup.host.run(["kill", "-KILL", str(found[0]["worker"])])
    domains.gone("its worker killed", time.monotonic(), region=False)


def _oriond_killed(domains: Domains) -> None:
    domains.setup.oriond.stop(signal.SIGKILL)
    life.goes_on(domains.calm)
    domains.setup.oriond.start()
    eventually(lambda: domains.setup.oriond.domain("calm").get("proven") is True, "a proof is forgotten", GONE_SECONDS)


def _libvirtd_killed(domains: Domains) -> None:
    domains.setup.libvirt.kill()
    life.goes_on(domains.calm)
    domains.setup.libvirt.launch()
    eventually(lambda: domains.setup.oriond.domain("calm").get("state") == "running", "oriond does not see libvirt again", GONE_SECONDS)


FAULTS: dict[str, Callable[[Domains], None]] = {
    "QEMU killed": _qemu_killed, "QEMU killed while oriond is away": _qemu_killed_without_oriond,
    "QEMU killed while libvirtd is away": _qemu_killed_without_libvirtd, "destroyed": _destroyed, "reset": _reset,
    "reset while oriond is away": _reset_without_oriond, "reset while libvirtd is away": _reset_without_libvirtd,
    "program killed": _program_killed, "worker killed": _worker_killed, "oriond killed": _oriond_killed,
    "libvirtd killed": _libvirtd_killed,
}
_AT_BOOT = ("QEMU killed", "QEMU killed while oriond is away", "destroyed")  # what there is then


def faults(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Endless; every fault once in random order, then again."""
    while True:
        for fault in rng.sample(list(FAULTS), len(FAULTS)):
            yield fault, rng.choice(["early", "at work", "at work", *(["at boot"] if fault in _AT_BOOT else [])])


def soak(setup: Setup, seconds: float, seed: int, rounds: int = 1 << 62) -> Domains:
    """Runs it, to the end of the first of both. Raises AssertionError with what repeats it."""
    rng, domains = random.Random(seed), Domains(setup)
    try:
        domains.begin()
        end = time.monotonic() + seconds
        for at, (fault, when) in enumerate(faults(rng)):
            if time.monotonic() > end or at == rounds:
                break
            domains.round(fault, when, rng)
        domains.end()
    except Exception:
        print(setup.oriond.output()[-6000:])
        print(f"seed {seed}; the sequence: {domains.history}")
        raise
    finally:
        print(f"domains, seed {seed}: {len(domains.history)} faults", *domains.figures.lines(), sep="\n", flush=True)
        domains.close()
    return domains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    args = parser.parse_args()
    with PrivateHost(shm_mib=SHM_MIB, cache=CACHE) as host:
        libvirt = PrivateLibvirt(host)
        libvirt.start()
        oriond = Oriond(host, SETTINGS)
        oriond.start()
        soak(Setup(host, libvirt, oriond), args.seconds, args.seed)


if __name__ == "__main__":
    main()
