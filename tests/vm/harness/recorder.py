# SPDX-License-Identifier: Apache-2.0
"""Writes down how libvirt calls its qemu hooks: a hook beside ours that keeps arguments, environment and stdin."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .host import PrivateHost

SCRIPT = """\
#!/usr/bin/python3 -I
import json, os, sys, time
call = {"argv": sys.argv[1:], "environ": sorted(os.environ), "cwd": os.getcwd(), "stdin": sys.stdin.read()}
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "recorded", f"{time.time_ns()}.json")
with open(path + ".new", "w") as file:
    json.dump(call, file)
os.rename(path + ".new", path)
"""


@dataclass(frozen=True)
class Call:
    """One call of a hook, as libvirt made it."""

    argv: tuple[str, ...]
    environ: tuple[str, ...]
    cwd: str
    stdin: str


class Recorder:
    """Of one private host. libvirt reads the directory at each call once it has a hook at all."""

    def __init__(self, host: PrivateHost) -> None:
        hooks = host.state / "etc-libvirt" / "hooks"
        self._recorded = hooks / "recorded"
        self._recorded.mkdir(exist_ok=True)
        self._script = hooks / "qemu.d" / "10-recorder"
        self._script.write_text(SCRIPT)
        self._script.chmod(0o755)

    def calls(self, guest: str) -> list[Call]:
        """Those for one domain, in order."""
        found = []
        for path in sorted(self._recorded.glob("*.json")):
            raw = json.loads(path.read_text())
            if raw["argv"][:1] == [guest]:
                found.append(Call(tuple(raw["argv"]), tuple(raw["environ"]), raw["cwd"], raw["stdin"]))
        return found

    def operations(self, guest: str) -> list[str]:
        return [call.argv[1] for call in self.calls(guest)]

    def remove(self) -> None:
        self._script.unlink()
        for path in self._recorded.glob("*.json"):
            path.unlink()


def write_fixtures(calls: list[Call], directory: Path, replaced: dict[str, str]) -> None:
    """The first call of each operation as OP.args and OP.xml, without what is this machine's."""
    directory.mkdir(parents=True, exist_ok=True)
    for call in reversed(calls):
        text = call.stdin
        for old, new in replaced.items():
            text = text.replace(old, new)
        (directory / f"{call.argv[1]}.args").write_text(" ".join(call.argv) + "\n")
        (directory / f"{call.argv[1]}.xml").write_text(text)
