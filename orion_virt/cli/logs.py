# SPDX-License-Identifier: Apache-2.0
"""`orion-virt logs`: server.log, and of one domain also what its workers wrote."""

from __future__ import annotations

import json
import re
import time
import uuid as uuids
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from orion_virt import paths
from orion_virt.cli.complete import domain_names
from orion_virt.cli.control import ask
from orion_virt.errors import Forbidden, NotFound, OrionError

LOOK_SECONDS = 0.5
SESSIONS = 20  # the newest that are shown without -f
_OPENED = re.compile(r"channel (\d+): .* of (\S+) over (?:shared memory|TCP)")
_CHANNEL = re.compile(r"channel (\d+): ")
_NEW_LIFE = "oriond is ready"

Keep = Callable[[str], bool]


class File:
    """A log as it grows; one that is replaced or truncated is read from its beginning."""

    def __init__(self, path: Path, keep: Keep) -> None:
        self.path = path
        self._keep = keep
        self._inode = self._at = 0
        self._rest = b""

    def fresh(self) -> Iterator[str]:
        """Whole lines that came since the last call. Raises Forbidden; none where the file is not there."""
        try:
            with self.path.open("rb") as file:
                here = self.path.stat()
                if here.st_ino != self._inode or here.st_size < self._at:
                    self._inode, self._at, self._rest = here.st_ino, 0, b""
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return
        except PermissionError as error:
            raise Forbidden(f"{self.path} cannot be read", hint="Use sudo: the logs are root's") from error
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            if self._keep(text):
                yield text


class OfDomain:
    """Which lines of server.log are about one domain: by name, by UUID, or by the number of one of its channels."""

    def __init__(self, name: str, uuid: str) -> None:
        self._words = re.compile(rf"\bdomain {re.escape(name)}(?![\w.-])|{re.escape(uuid)}")
        self._uuid = uuid
        self._channels: set[str] = set()

    def __call__(self, line: str) -> bool:
        if _NEW_LIFE in line:
            self._channels.clear()  # channels are numbered from 1 again
        opened = _OPENED.search(line)
        if opened:
            (self._channels.add if opened[2] == self._uuid else self._channels.discard)(opened[1])
        channel = _CHANNEL.search(line)
        return bool(self._words.search(line)) or (channel is not None and channel[1] in self._channels)


def identify(domain: str) -> tuple[str, str]:
    """(name, UUID). Without oriond a UUID must do, since nobody else knows which log is whose."""
    try:
        names = ask("names")["by_uuid"]
    except OrionError as error:
        try:
            return domain, str(uuids.UUID(domain))
        except ValueError:
            raise error from None
    for uuid, name in names.items():
        if domain in (name, uuid):
            return name, uuid
    raise NotFound(f"there is no domain {domain!r}", hint="`virsh list --all` shows the domains that libvirt knows")


class Logs:
    """All files that belong to the question; sessions that begin later are found too."""

    def __init__(self, uuid: str, keep: Keep) -> None:
        self._uuid = uuid
        self._server = File(paths.log() / "server.log", keep)
        self._sessions: dict[Path, File | None] = {}

    def fresh(self) -> Iterator[tuple[Path, str]]:
        """(file, line) of everything new."""
        for file in (self._server, *self._of_sessions()):
            for line in file.fresh():
                yield file.path, line

    def _of_sessions(self) -> list[File]:
        if not self._uuid:
            return []
        first = not self._sessions
        found = sorted((paths.log() / "session").glob("*.log"), key=lambda p: p.name)
        for path in found:
            if path not in self._sessions:
                self._sessions[path] = File(path, lambda _: True) if self._is_ours(path) else None
        ours = [file for path in found if (file := self._sessions[path]) is not None]
        if first:
            for file in ours[:-SESSIONS]:
                self._sessions[file.path] = None
        return ours[-SESSIONS:] if first else ours

    def _is_ours(self, path: Path) -> bool:
        try:
            with path.open(errors="replace") as file:
                return self._uuid in file.readline()
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise Forbidden(f"{path} cannot be read", hint="Use sudo: the logs are root's") from error


def _print(found: list[tuple[Path, str]], as_json: bool, last: Path | None) -> Path | None:
    """As tail does: a heading where the file changes. Returns the last file."""
    for path, line in found:
        if as_json:
            click.echo(json.dumps({"file": str(path), "line": line}))
            continue
        if path != last:
            click.echo(f"{'' if last is None else chr(10)}==> {path} <==")
        last = path
        click.echo(line)
    return last


def _newest(found: Iterator[tuple[Path, str]], lines: int) -> list[tuple[Path, str]]:
    """The last `lines` of each file."""
    kept: dict[Path, deque[str]] = {}
    for path, line in found:
        kept.setdefault(path, deque(maxlen=lines)).append(line)
    return [(path, line) for path, some in kept.items() for line in some]


@click.command()
@click.argument("domain", required=False, shell_complete=domain_names)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    metavar="N",
    help="Last lines of each file.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")
def logs(domain: str | None, follow: bool, lines: int, as_json: bool) -> None:
    """Shows oriond's log; of DOMAIN only what is about it, and the logs of its workers."""
    name, uuid = identify(domain) if domain else ("", "")
    files = Logs(uuid, OfDomain(name, uuid) if domain else lambda _: True)
    if not (paths.log() / "server.log").exists():
        raise NotFound(
            f"{paths.log() / 'server.log'} does not exist",
            hint="Is log_to_file off in [server-log]? Then: journalctl -u oriond",
        )
    last = _print(_newest(files.fresh(), lines), as_json, None)
    try:
        while follow:
            time.sleep(LOOK_SECONDS)
            last = _print(list(files.fresh()), as_json, last)
    except KeyboardInterrupt:
        click.echo()
