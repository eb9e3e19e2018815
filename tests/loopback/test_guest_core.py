# SPDX-License-Identifier: Apache-2.0
"""The core of the guest library against a fake server: ring, waiting, loss, fork, exit, settings, TCP frames."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orion_virt import layout

ROOT = Path(__file__).resolve().parents[2]
GUEST = ROOT / "guest-agent" / "libcuda"
HERE = ROOT / "tests" / "loopback" / "guest_core"
CORE = """lock log mailbox maps moved piece settings settings_file hmac reserve region pci snapshot visible connect doorbell controller server
handshake link away
transport_shm transport_tcp wait call thread handles state exit fork""".split()
WARN = "-Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Werror".split()
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
ALLOCATION = "fda38164-711b-4809-9984-2759a3a2165b"

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def _compile(out: Path, sanitize: list[str]) -> Path:
    """client, pure and fake from freshly generated code."""
    subprocess.run([sys.executable, "-m", "orion_virt.codegen", "--out", out], cwd=ROOT, check=True, timeout=180)
    gen = out / "guest-agent" / "libcuda"
    shutil.copy(GUEST / "client.h", gen)  # what gen/ includes as "client.h"
    core = [str(GUEST / f"{name}.c") for name in CORE] + [str(gen / "gen" / "op_flags.c")]
    base = ["gcc", "-std=gnu11", "-O1", "-g", "-fno-common", "-pthread", *WARN, *sanitize]
    base += [f"-I{p}" for p in (ROOT / "ivshmem/include", out / "ivshmem/gen", GUEST, gen, ROOT / "tests/c", HERE)]
    for name, sources in {
        "client": [HERE / "client.c", HERE / "client_calls.c", HERE / "rest.c", *core],
        "pure": [HERE / "pure.c", HERE / "rest.c", *core],
        "fake": [HERE / "fake_server.c", HERE / "fake_worker.c", GUEST / "hmac.c", GUEST / "connect.c"],
    }.items():
        subprocess.run([*base, "-o", out / name, *sources], check=True, timeout=120)
    return out


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(tmp_path_factory.mktemp("guest_core"), SANITIZE)


@dataclass
class Bench:
    """A folder, its environment, and the programs to run in it."""

    programs: Path
    tmp: Path
    env: dict[str, str]

    def run(self, program: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.programs / program, *args], env=self.env | env, capture_output=True, text=True, timeout=180
        )

    def client(self, *args: str, **env: str) -> str:
        """Runs a behaviour that must pass; returns its stderr."""
        done = self.run("client", *args, **env)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def log(self) -> str:
        file = self.tmp / "home" / ".orion" / "log" / "client.log"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def bench(programs: Path, tmp_path: Path) -> Bench:
    for name in ("home", "etc"):
        (tmp_path / name).mkdir()
    # a receiver thread of the library lives on while leaks are looked for
    env = {"HOME": str(tmp_path / "home"), "ORION_ETC": str(tmp_path / "etc"), "PATH": os.environ["PATH"]}
    return Bench(programs, tmp_path, env | {"ASAN_OPTIONS": "detect_leaks=0"})


@contextlib.contextmanager
def fake_server(programs: Path, region: Path) -> Iterator[str]:
    with subprocess.Popen([programs / "fake", region], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        yield f"127.0.0.1:{process.stdout.readline().decode().strip()}"
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.fixture(params=["shm", "tcp"])
def served(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench with a fake server that is reached through a region, or over TCP alone."""
    region = bench.tmp / "region"
    with fake_server(bench.programs, region) as addr:
        if request.param == "shm":
            bench.env["ORION_REGION"] = str(region)
        else:
            bench.env |= {"ORION_SERVER": addr, "ORION_CONTROLLER": addr}
        yield bench


@pytest.mark.parametrize("name", ["threads", "lost-waiting"])
def test_no_data_race(bench: Bench, tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Over TCP: the thread sanitizer keeps the region's addresses for itself."""
    if not shutil.which("setarch"):
        pytest.skip("needs setarch: the thread sanitizer wants a fixed address space")
    folder = tmp_path_factory.getbasetemp() / "guest_core_threads"
    if not folder.exists():
        folder.mkdir()
        _compile(folder, ["-fsanitize=thread", "-Wno-error=tsan"])
    with fake_server(bench.programs, bench.tmp / "region") as addr:
        env = bench.env | {"ORION_SERVER": addr, "ORION_CONTROLLER": addr}
        command = ["setarch", "-R", str(folder / "client"), name]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
    if "personality" in done.stderr:
        pytest.skip("this environment forbids a fixed address space")
    assert done.returncode == 0, done.stderr


BEHAVIOURS = "calls threads slots full park idle fence fork-fresh sticky lost-waiting reserved flood".split()


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviour(served: Bench, name: str) -> None:
    served.client(name)


def test_every_call_a_round_trip(served: Bench) -> None:
    served.client("sticky", ORION_SYNC="1")


def test_lines_of_a_run(served: Bench) -> None:
    lines = served.client("idle").splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"Orion vGPU\. Build-cuda-[0-9a-f]{7}-\d{8}_\d{6}", lines[0])
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[INFO\] Client exits with"
    assert re.fullmatch(rf"{stamp} allocation ID {ALLOCATION}", lines[1])
    assert re.fullmatch(rf"{stamp}out allocation ID\.", served.client("init").splitlines()[1])
    assert served.client("idle", ORION_LOG_SCREEN="0") == ""
    assert ALLOCATION in served.log()


def test_fork_says_nothing_twice(served: Bench) -> None:
    assert served.client("fork").count("Client exits") == 1


@pytest.mark.parametrize(("how", "reason"), [("0", "connection to the host ended"), ("1", "malformed"), ("2", "sent")])
def test_lost_channel(served: Bench, how: str, reason: str) -> None:
    said = [line for line in served.client("lost", how).splitlines() if line.startswith("orion:")]
    assert len(said) == 1
    assert reason in said[0] and "Start the program again" in said[0]


def test_devices(served: Bench) -> None:
    done = served.run("client", "init", ORION_VGPU="3", ORION_GMEM="12000", CUDA_VISIBLE_DEVICES="2,0")
    devices = re.findall(r"device \d Fake GPU (\d+) bus (\d+) uuid (\S+)", done.stdout)
    assert [(int(memory), int(bus)) for memory, bus, _ in devices] == [(12000 << 20, 162), (12000 << 20, 160)]
    prefix = f"GPU-{devices[0][2]}"[:12]
    again = served.run("client", "init", ORION_VGPU="3", CUDA_VISIBLE_DEVICES=prefix)
    assert "devices 1" in again.stdout and devices[0][2] in again.stdout


@pytest.mark.parametrize(
    ("value", "result"),
    [("", "100 devices 0"), ("-1", "100 devices 0"), ("0,0", "100 devices 0"), ("1,7,0", "0 devices 1"), ("GPU-", "100")],
)
def test_visible_devices(served: Bench, value: str, result: str) -> None:
    done = served.run("client", "init", ORION_VGPU="2", CUDA_VISIBLE_DEVICES=value)
    assert f"result {result}" in done.stdout


def test_refused_allocation(served: Bench) -> None:
    done = served.run("client", "connect", ORION_VGPU="5")
    assert done.stdout.startswith("connect 100\nagain 100")
    said = [line for line in done.stderr.splitlines() if line.startswith("orion:")]
    assert len(said) == 1 and "only 4 vGPU are free now" in said[0]


def test_refused_handshake(served: Bench) -> None:
    done = served.run("client", "connect", CUDA_MODULE_LOADING="REFUSE")
    assert done.stdout.startswith("connect 2\n")
    assert "the region is full. Raise shm_buffer_size" in done.stderr


def test_wrong_proof(bench: Bench) -> None:
    region = bench.tmp / "region"
    with fake_server(bench.programs, region):
        with region.open("r+b") as file:
            file.seek(8 + 4 + 4 + 8 + 16 + 16)
            file.write(b"x" * 16)
        done = bench.run("client", "connect", ORION_REGION=str(region))
    assert "connect 999" in done.stdout and "the proof does not match" in done.stderr


def test_nothing_reachable(bench: Bench) -> None:
    done = bench.run("client", "init", ORION_SERVER="127.0.0.1:1")
    assert "result 100" in done.stdout
    said = [line for line in done.stderr.splitlines() if line.startswith("orion:")]
    assert len(said) == 1
    for word in ("127.0.0.1:1: Connection refused", "oriond", "orion-virt list", "firewall", "client.conf"):
        assert word in said[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "smaller than a region's header"),
        (b"\0" * (4 << 20), "not initialised by oriond"),
        (b"UORION01" + b"\x09\0\0\0" + b"\0" * (4 << 20), "layout version 9"),
        (b"UORION01" + b"\x01\0\0\0\0\0\1\0" + b"\xff" * 8 + b"\0" * (4 << 20), "contradicts its size"),
    ],
)
def test_bad_region(bench: Bench, content: bytes, reason: str) -> None:
    region = bench.tmp / "region"
    region.write_bytes(content)
    done = bench.run("client", "init", ORION_REGION=str(region), ORION_SERVER="127.0.0.1:1")
    assert "result 100" in done.stdout and reason in done.stderr


def _pci_device(tmp: Path, resource: Path | None) -> str:
    device = tmp / "pci" / "0000:00:07.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x1af4\n")
    (device / "device").write_text("0x1110\n")
    if resource:
        (device / "resource2").symlink_to(resource)
    return str(device.parent)


def test_region_of_a_pci_device(bench: Bench) -> None:
    region = bench.tmp / "region"
    with fake_server(bench.programs, region):
        bench.client("idle", TEST_PCI=_pci_device(bench.tmp, region))
    assert "shared memory" in bench.log()


@pytest.mark.parametrize(("bit", "registers"), [(1, "there"), (1, "missing"), (1, "short"), (1, "elsewhere"), (0, "there")])
def test_doorbell_of_a_pci_device(bench: Bench, bit: int, registers: str) -> None:
    """It is rung with the server's value, besides the byte as long as the host has not heard it; without it all goes on."""
    region, path = bench.tmp / "region", _pci_device(bench.tmp, bench.tmp / "region")
    bar = Path(path) / "0000:00:07.0" / "resource0"
    at = 0x300 if registers == "elsewhere" else 0  # a BAR that is smaller than a page may begin within one
    (bar.parent / "resource").write_text(f"0x{0xFEBD1000 + at:016x} 0x{0xFEBD10FF + at:016x} 0x0000000000040200\n")
    if registers != "missing":
        bar.write_bytes(bytes(128 if registers == "short" else 4096))
    with fake_server(bench.programs, region):
        with region.open("r+b") as file:
            file.seek(layout.Header.features.offset)
            file.write(bytes([bit]))
        bench.client("ring", TEST_PCI=path)
    rings = bit and registers in ("there", "elsewhere")
    if registers != "missing":
        assert int.from_bytes(bar.read_bytes()[at + 12 : at + 16], "little") == (65543 if rings else 0)
    assert ("the doorbell cannot be used" in bench.log()) == (bool(bit) and not rings)


def test_pci_device_without_address(bench: Bench) -> None:
    done = bench.run("client", "init", TEST_PCI=_pci_device(bench.tmp, None), ORION_SERVER="127.0.0.1:1")
    assert "needs a power cycle" in done.stderr


def test_device_without_header(bench: Bench) -> None:
    empty = bench.tmp / "region"
    empty.write_bytes(b"\0" * (4 << 20))
    done = bench.run("client", "init", TEST_PCI=_pci_device(bench.tmp, empty), ORION_SERVER="127.0.0.1:1")
    said = [line for line in done.stderr.splitlines() if line.startswith("orion:")]
    assert len(said) == 1 and "resource2: it is not initialised by oriond" in said[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_no_permission(bench: Bench) -> None:
    region = bench.tmp / "region"
    region.write_bytes(b"\0" * (4 << 20))
    region.chmod(0o600)
    command = ["setpriv", "--reuid=65534", "--clear-groups", str(bench.programs / "client"), "init"]
    for folder in (bench.programs, *bench.programs.parents, *bench.tmp.parents, bench.tmp):
        if folder != Path("/") and folder.stat().st_uid == 0 and not folder.stat().st_mode & 1:
            folder.chmod(folder.stat().st_mode | 0o11)
    env = bench.env | {"ORION_REGION": str(region), "ORION_SERVER": "127.0.0.1:1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
    assert "group orion" in done.stderr and "usermod -aG orion" in done.stderr


# ---- parts that need no server ----


def test_handles(bench: Bench) -> None:
    done = bench.run("pure", "handles")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("key", "a", "b"), [("k", "", ""), ("key" * 40, "a" * 55, "b" * 64), ("k" * 64, "x" * 200, "y")])
def test_hmac(bench: Bench, key: str, a: str, b: str) -> None:
    want = hmac.new(key.encode(), (a + b).encode(), hashlib.sha256).hexdigest()
    assert bench.run("pure", "hmac", key, a, b).stdout.strip() == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("10.0.0.1:99", "10.0.0.1:99"),
        ("10.0.0.1", "10.0.0.1:9123"),
        ("fe80::1", "[fe80::1]:9123"),
        ("[fe80::1]:7", "[fe80::1]:7"),
        ("[fe80::1]", "[fe80::1]:9123"),
        ("host:0", "bad"),
        ("host:x", "bad"),
        (":1", "bad"),
        ("", "bad"),
        ("a b:1", "bad"),
        ("x" * 200, "bad"),
    ],
)
def test_addresses(bench: Bench, text: str, want: str) -> None:
    assert bench.run("pure", "addr", text).stdout.strip() == want


def test_settings_order(bench: Bench) -> None:
    (bench.tmp / "etc" / "client.conf").write_text(
        "[controller]\n    controller_addr = 33.31.0.1:9123 ; gateway\n[client-log]\nlog_to_screen = \"false\"\nspeed = 3\n"
    )
    (bench.tmp / "home" / ".orion").mkdir()
    (bench.tmp / "home" / ".orion" / "client.conf").write_text("[client-log]\nlog_level = ERROR # quiet\n")
    out = bench.run("pure", "settings").stdout
    assert "result 0 vgpus 1 gmem 0 controller '33.31.0.1:9123'" in out
    assert "screen 0 time 1 level 3" in out
    assert "client.conf:5: unknown key [client-log] speed" in bench.log()
    out = bench.run("pure", "settings", ORION_CONTROLLER="1.2.3.4", ORION_VGPU="2", ORION_GMEM="100").stdout
    assert "vgpus 2 gmem 104857600 controller '1.2.3.4:9123'" in out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ORION_VGPU", "0"),
        ("ORION_VGPU", "33"),
        ("ORION_VGPU", "two"),
        ("ORION_GMEM", "12G"),
        ("ORION_GMEM", "-1"),
        ("ORION_GMEM", "99999999999999999999"),
        ("ORION_CONTROLLER", "host:port"),
        ("ORION_SYNC", "maybe"),
        ("ORION_BAR", "wb"),
        ("ORION_REGION", "relative"),
        ("ORION_LOG_LEVEL", "loud"),
    ],
)
def test_bad_variable(bench: Bench, name: str, value: str) -> None:
    done = bench.run("pure", "settings", **{name: value})
    assert "result 1 " in done.stdout
    assert done.stderr.startswith(f"orion: {name}={value} is not valid; accepted: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("line", ["log_to_screen = perhaps", "log_level = 7", "no equals sign"])
def test_bad_file(bench: Bench, line: str) -> None:
    (bench.tmp / "etc" / "client.conf").write_text(f"[client-log]\n{line}\n")
    done = bench.run("pure", "settings")
    assert "result 1 " in done.stdout
    assert "client.conf:2: [client-log]" in done.stderr and done.stderr.count("\n") == 1
