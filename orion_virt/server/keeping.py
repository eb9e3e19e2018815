# SPDX-License-Identifier: Apache-2.0
"""What a daemon leaves for the one that follows it: of each channel a record, and a socket at which its worker is found.

Both lie in a directory that nobody else may enter. The worker listens, and tells what changes while it lives; the record
has what the worker shall not be asked, since it serves a guest: whose channel it is, and what that was promised.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from orion_virt.errors import ProtocolError
from orion_virt.layout import PROTOCOL
from orion_virt.server.hello import Hello

_log = logging.getLogger("orion.keeping")


@dataclass(frozen=True)
class Record:
    """``started``: of the worker, as /proc has it, so that another process of the same number is not taken for it.
    ``region``: device and inode of its file. ``mail``: slot, opening and epoch, of a client that came through the mailbox.
    ``turns``: whether the worker asks for turns on the card."""

    channel: int
    pid: int
    started: int
    hello: Hello
    peer: str
    owner: str
    allocation: dict[str, Any]
    ratio: int
    turns: bool
    opened_at: float
    block: int = 0
    region: tuple[int, ...] = ()
    mail: tuple[int, ...] = ()
    bell: int = 0
    group_row: int = -1
    log: str = ""

    def text(self) -> str:
        raw = asdict(self) | {"protocol": PROTOCOL}
        del raw["hello"]["raw"]
        return json.dumps(raw)


def parse(text: str) -> Record:
    """Raises ProtocolError for what another version wrote, or nobody."""
    try:
        raw = json.loads(text)
        if raw.pop("protocol") != PROTOCOL:
            raise ProtocolError("it is of another version")
        said = _known(Hello, raw.pop("hello")) | {"raw": b""}
        said["vgpus"] = tuple(said["vgpus"])
        said["env"] = tuple((str(key), str(value)) for key, value in said["env"])
        raw = _known(Record, raw) | {"hello": Hello(**said), "region": tuple(raw["region"]), "mail": tuple(raw["mail"])}
        return Record(**raw)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ProtocolError(f"it is not readable: {error!r}") from None


def _known(kind: type, raw: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {key: value for key, value in raw.items() if key in names}


@dataclass(frozen=True)
class Kept:
    """``record`` None: ``why`` says what is wrong with it; ``pid`` may be known all the same."""

    name: str
    pid: int
    started: int
    record: Record | None
    why: str = ""


class Keeping:
    """For the event loop; every file operation is short."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, record: Record) -> socket.socket:
        """Writes the record, and returns the socket for its worker, listening. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        name = str(record.channel)
        fresh = self._directory / f"{name}.new"
        fresh.write_text(record.text())
        fresh.replace(self._directory / f"{name}.json")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short(self._directory) as place:
                listener.bind(f"{place}/{name}.sock")
            listener.listen(1)
        except OSError:
            listener.close()
            self.drop(record.channel)
            raise
        return listener

    def drop(self, name: int | str) -> None:
        """The worker has ended."""
        for suffix in ("json", "sock", "new"):
            (self._directory / f"{name}.{suffix}").unlink(missing_ok=True)

    def connect(self, name: str) -> socket.socket:
        """To the worker; blocking. Raises OSError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short(self._directory) as place:
                sock.connect(f"{place}/{name}.sock")
        except OSError:
            sock.close()
            raise
        return sock

    def found(self) -> list[Kept]:
        """All records that there are."""
        return [self._read(path) for path in sorted(self._directory.glob("*.json"))]

    def _read(self, path: Path) -> Kept:
        pid = started = 0
        try:
            text = path.read_text()
            with contextlib.suppress(ValueError, KeyError, TypeError):
                raw = json.loads(text)
                pid, started = int(raw["pid"]), int(raw["started"])
            return Kept(path.stem, pid, started, parse(text))
        except (OSError, UnicodeDecodeError, ProtocolError) as error:
            return Kept(path.stem, pid, started, None, str(error))


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """A name for the directory that fits into a socket's address, however long its path is."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def started(pid: int) -> int:
    """When the process began, in the kernel's ticks; 0: there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
