# SPDX-License-Identifier: Apache-2.0
"""Parts of guest library and executor alone: the runtime's handshake, context-local storage, extents of images."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "guest_parts"
GUEST = ROOT / "guest-agent" / "libcuda"
EXECUTOR = ROOT / "orion_virt" / "executor"
WARN = "-Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes".split()
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all".split()
FATBIN_MAGIC = 0xBA55ED50

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test programs, built from freshly generated headers."""
    out = tmp_path_factory.mktemp("guest_parts")
    subprocess.run([sys.executable, "-m", "orion_virt.codegen", "--out", out], cwd=ROOT, check=True, timeout=180)
    base = ["gcc", "-std=gnu11", "-O1", "-g", "-pthread", *WARN, *SANITIZE, f"-I{ROOT / 'tests/c'}"]
    base += [f"-I{ROOT / 'ivshmem/include'}", f"-I{out / 'ivshmem/gen'}"]
    guest = [f"-I{out / 'guest-agent/libcuda'}", f"-I{GUEST}"]
    host = [f"-I{out / 'orion_virt/executor'}", f"-I{EXECUTOR}"]
    for name, include, sources in (
        ("integrity", guest, [GUEST / "md2.c", GUEST / "tables_integrity.c"]),
        ("storage", guest, [GUEST / "storage.c"]),
        ("extent", guest, [GUEST / "image.c"]),
        ("mailbox", guest, [GUEST / "mailbox.c", GUEST / "connect.c", GUEST / "lock.c"]),
        ("image_ok", host, [EXECUTOR / "image_check.c"]),
    ):
        subprocess.run([*base, *include, "-o", out / name, HERE / f"{name}.c", *sources], check=True, timeout=120)
    return out


def run(programs: Path, name: str, *args: object) -> str:
    done = subprocess.run([programs / name, *map(str, args)], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["integrity", "storage"])
def test_part(programs: Path, name: str) -> None:
    run(programs, name)


@pytest.mark.parametrize("case", ["carries", "ends", "nobody-serves", "all-taken", "owner-dies", "child-of-a-fork"])
def test_mailbox(programs: Path, case: str) -> None:
    run(programs, "mailbox", case)


def elf(sections: list[tuple[int, int, int]], tail: int = 0) -> bytes:
    """An ELF64 of `sections` (type, offset, size), its section table at the end of the data."""
    end = max([64, *(offset + size for kind, offset, size in sections if kind != 8)])
    head = b"\x7fELF\x02\x01\x01\x33" + bytes(8)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 190, 1, 0, 0, end, 0, 64, 56, 0, 64, len(sections), 0)
    table = b"".join(struct.pack("<IIQQQQIIQQ", 0, k, 0, 0, o, s, 0, 0, 0, 0) for k, o, s in sections)
    return head + bytes(end - 64) + table + bytes(tail)


def fatbin(entries: list[tuple[int, bytes]], flags: int = 0) -> bytes:
    """A fatbin of `entries` (kind, payload)."""
    body = b""
    for kind, payload in entries:
        payload += bytes(-len(payload) % 8)
        body += struct.pack("<HHIQ24sQQQ", kind, 0x101, 64, len(payload), bytes(24), flags, 0, 0) + payload
    return struct.pack("<IHHQ", FATBIN_MAGIC, 1, 16, len(body)) + body


GOOD_ELF = elf([(0, 0, 0), (1, 64, 100), (8, 64, 1 << 40)])  # the last has no bytes in the file
PTX = b".version 7.0\n.target sm_52\n.address_size 64\n\0"


def write(tmp: Path, name: str, data: bytes) -> Path:
    path = tmp / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "extent"),
    [
        (GOOD_ELF, len(GOOD_ELF)),
        (fatbin([(2, GOOD_ELF), (1, PTX)]), len(fatbin([(2, GOOD_ELF), (1, PTX)]))),
        (PTX, len(PTX)),
        (b"\0", 1),
        (b"x\0", 2),
        (b"!<arch>\n" + b"a.o/            0           0     0     644     4         `\nabcd", 72),
    ],
    ids=["elf", "fatbin", "ptx", "empty text", "short text", "archive"],
)
def test_client_finds_the_extent(programs: Path, tmp_path: Path, data: bytes, extent: int) -> None:
    assert run(programs, "extent", write(tmp_path, "image", data), "bounded").split() == ["0", "0", str(extent)]


def test_client_reads_no_byte_beyond_an_image_of_unknown_size(programs: Path, tmp_path: Path) -> None:
    for data in (GOOD_ELF, fatbin([(1, PTX)]), PTX):  # the page after the last byte is unreadable
        assert run(programs, "extent", write(tmp_path, "image", data)).split()[0] == "0"


def test_client_ships_every_piece_of_a_wrapper(programs: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "image", fatbin([(1, PTX)]))
    size = str(path.stat().st_size)
    assert run(programs, "extent", path, "wrapper", 1).split() == ["0", "1", size]
    assert run(programs, "extent", path, "wrapper", 2).split() == ["0", "2", size, size, size]
    assert run(programs, "extent", path, "wrapper", 3).split() == ["200"]


HOSTILE = {
    "elf cut": GOOD_ELF[:-1],
    "elf header alone": GOOD_ELF[:64],
    "elf short": GOOD_ELF[:40],
    "elf section outside": elf([(0, 0, 0), (1, 64, 100)])[:-64]
    + struct.pack("<IIQQQQIIQQ", 0, 1, 0, 0, 8, 1 << 62, 0, 0, 0, 0),
    "elf tables wrap": GOOD_ELF[:40] + struct.pack("<Q", (1 << 64) - 64) + GOOD_ELF[48:],
    "fatbin cut": fatbin([(1, PTX)])[:-1],
    "fatbin header alone": fatbin([])[:10],
    "fatbin size wraps": struct.pack("<IHHQ", FATBIN_MAGIC, 1, 16, (1 << 64) - 8) + bytes(64),
    "fatbin header size 0": struct.pack("<IHHQ", FATBIN_MAGIC, 1, 0, 64) + bytes(64),
    "archive cut": b"!<arch>\n" + b"a.o/            0           0     0     644     400       `\nabcd",
    "text without end": PTX[:-1],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_both_sides_refuse(programs: Path, tmp_path: Path, name: str) -> None:
    path = write(tmp_path, "image", HOSTILE[name])
    assert run(programs, "image_ok", path).split() == ["0"]
    assert run(programs, "extent", path, "bounded").split() == ["200"]


def test_executor_looks_into_fatbins(programs: Path, tmp_path: Path) -> None:
    """Entries are the guest's too: the client does not look at them, so a hostile guest can make any."""
    entry = struct.pack("<HHIQ24sQQQ", 2, 0x101, 64, 1 << 40, bytes(24), 0, 0, 0)
    images = {
        "good": (fatbin([(2, GOOD_ELF), (1, PTX)]), 1),
        "compressed is not an elf": (fatbin([(2, b"z" * 64)], flags=0x2000), 1),
        "elf inside is cut": (fatbin([(2, GOOD_ELF[:96])]), 0),
        "payload outside": (struct.pack("<IHHQ", FATBIN_MAGIC, 1, 16, len(entry)) + entry, 0),
        "entry header 0": (struct.pack("<IHHQ", FATBIN_MAGIC, 1, 16, 64) + bytes(64), 0),
        "nothing": (b"", 0),
    }
    for name, (data, want) in images.items():
        assert run(programs, "image_ok", write(tmp_path, "image", data)).split() == [str(want)], name


def test_no_prefix_of_an_image_crashes_either_side(programs: Path, tmp_path: Path) -> None:
    whole = fatbin([(2, GOOD_ELF), (1, PTX)])
    paths = [write(tmp_path, f"{n}", whole[:n]) for n in range(0, len(whole), 7)]
    assert set(run(programs, "image_ok", *paths).split()) == {"0"}
    for path in paths[1::12]:
        assert run(programs, "extent", path, "bounded").split() == ["200"]
