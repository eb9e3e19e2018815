# SPDX-License-Identifier: Apache-2.0
"""Every figure and text of the NVML spec on its whole way, with a value of its own; and orion-smi, which shows some of them."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from host import LIB, ROOT

from orion_virt.gpu import figures, snapshot
from orion_virt.gpu.inventory import Gpu, Inventory
from orion_virt.server.blocks import build
from orion_virt.spec.nvml import LINES
from orion_virt.spec.nvml.schema import Field, Figure, Text

GIB = 1 << 30
ULL_TYPE = 3  # nvmlValueType_t
CARD = Gpu(0, "Card of the test", 64 * GIB, 0, {75: 9, 76: 0})
SECOND = Gpu(1, "Second card", 64 * GIB, 0, {75: 8, 76: 6})
SMI = LIB / "guest" / "orion-smi"


def given() -> dict[int, int]:
    """A value for each number; the wide ones do not fit into 32 bits."""
    found = {}
    for line in LINES:
        if isinstance(line, (Figure, Field)):
            wide = isinstance(line, Figure) and line.out == "unsigned long long" or isinstance(line, Field)
            for number in range(line.number, line.number + line.count):
                found[number] = (number << 34) + 5 if wide else 1000 + number
            if isinstance(line, Field):
                small = isinstance(line.field, str) and line.field != "bar1Total"
                found[line.number] = 1000 + line.number if small else (line.number << 34) + 5
                if isinstance(line.field, int):
                    found[line.number + 1] = ULL_TYPE
    return found


def texts() -> dict[int, str]:
    return {line.number + i: f"text {line.number + i}" for line in LINES if isinstance(line, Text) for i in range(line.count)}


class Scripted(socketserver.StreamRequestHandler):
    """Answers INFO and USAGE as the server's attributes say."""

    def handle(self) -> None:
        first = self._block()
        if first.startswith("ORION/1 INFO"):
            raw = snapshot.build(Inventory(False, "none", 13000, (CARD, SECOND)), 4)
            self.wfile.write(build("INFO", {"snapshot": raw.hex()}))
        elif first.startswith("ORION/1 USAGE"):
            self.wfile.write(build("CHALLENGE", {"nonce": "00" * 16}))
            self._block()
            everything = "want: all" in first
            self.wfile.write(build("USAGE", self.server.answer(everything)))  # type: ignore[attr-defined]

    def _block(self) -> str:
        lines = []
        while (line := self.rfile.readline().decode()) not in ("\n", ""):
            lines.append(line)
        return "".join(lines)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    values: dict[int, int] = {}
    processes: tuple[str, ...] = ()

    def answer(self, everything: bool) -> dict[str, object]:
        live = set(figures.LIVE)
        told = {n: v for n, v in self.values.items() if everything or n in live}
        fields: dict[str, object] = {"live": " ".join(map(str, figures.LIVE)), "card.0": " ".join(f"{n}={v}" for n, v in told.items())}
        if everything:
            fields |= {"driver": "580.1", "nvml": "13.580.1"} | {f"text.0.{n}": t for n, t in texts().items()}
        return fields | {f"process.{i}": line for i, line in enumerate(self.processes)}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Scripted) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def env(server: Server, tmp_path: Path) -> dict[str, str]:
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("ORION_", "CUDA_"))}
    return keep | {"ORION_SERVER": f"127.0.0.1:{server.server_address[1]}", "LD_LIBRARY_PATH": str(LIB / "guest"),
                   "ORION_ETC": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}  # fmt: skip


READ = """
import json, pynvml
from orion_virt.gpu import figures
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
reader = figures.Reader()
print(json.dumps([reader.figures(handle, False) | reader.figures(handle, True), reader.texts(handle)]))
"""


def read(env: dict[str, str]) -> tuple[dict[int, int], dict[int, str]]:
    """What the host's own reader finds in the guest's library."""
    done = subprocess.run([sys.executable, "-c", READ], env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    numbers, strings = json.loads(done.stdout)
    return {int(n): v for n, v in numbers.items()}, {int(n): t for n, t in strings.items()}


def test_every_figure_arrives_as_it_was_asked(server: Server, env: dict[str, str]) -> None:
    server.values = given()
    found, strings = read(env)
    assert len(found) > 90
    assert found == server.values
    assert strings == texts()


def test_what_the_host_does_not_tell_is_not_supported(server: Server, env: dict[str, str]) -> None:
    """Of a card without any figure only what does not come from it is left: numbers of PCI that are zero."""
    server.values = {}
    found, _ = read(env)
    assert set(found) <= {1, 2}


NONSENSE = ["", "1 2", "1 4294967295 4294967295 1 1 1 1", "4294967295 31 99 18446744073709551615 18446744073709551615 999 999",
            "-1 -1 -1 -1 -1 -1 -1", "x" * 300]


def test_nonsense_of_a_server_is_left_out(server: Server, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(everything: bool) -> dict[str, object]:
        fields: dict[str, object] = {"live": "0 99999999 60 x", "driver": "d" * 500, "text.0.0": "t" * 500, "text.0.1": "ok"}
        fields |= {"card.0": "60=33 99999999=1 -1=7 61=44 62=x 63=1", "pair.0.1": "1 2", "pair.99.0": "1 2 3 4 5 6"}
        return fields | {f"process.{i}": line for i, line in enumerate(NONSENSE * 60)}

    monkeypatch.setattr(server, "answer", answer)
    found, strings = read(env)
    assert (found[60], found[61], strings) == (33, 44, {1: "ok"}) and 62 not in found and 63 not in found
    done = smi(env, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["vgpus"][0]["temperature_c"] == 33


OWN = """
import pynvml as n
input()
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
print(n.nvmlDeviceGetName(h), n.nvmlDeviceGetMemoryInfo(h).total, n.nvmlDeviceGetCudaComputeCapability(h))
"""


def test_a_process_with_a_vgpu_sees_the_card_that_it_got(server: Server, env: dict[str, str]) -> None:
    """Before, the card is the one on which an idle host would place it."""
    for granted, said in ((True, f"Second card {3 * GIB} (8, 6)\n"), (False, f"Card of the test {16 * GIB} (9, 0)\n")):
        with subprocess.Popen([sys.executable, "-c", OWN], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            server.processes = (f"{process.pid if granted else 1} 0 1 0 {3 * GIB} 0 0",)
            assert process.communicate("\n", timeout=180)[0] == said


def smi(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SMI, *args], env=env, capture_output=True, text=True, timeout=180, check=False)


def test_orion_smi(server: Server, env: dict[str, str]) -> None:
    server.values = {60: 41, 55: 2, 96: 123999, 95: 700000, 31: 1755, 32: 2619, 105: 3}
    server.processes = (f"{os.getpid()} 0 0 {3 * GIB} {16 * GIB} 30 7", f"4194304 2 0 {GIB} {16 * GIB} 20 1")
    done = smi(env, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["driver_version"], told["cuda_version"], [g["index"] for g in told["vgpus"]]) == ("580.1", "13.0", [0, 2])
    first, last = told["vgpus"]
    name = Path("/proc/self/cmdline").read_text().split("\0")[0]
    assert first["processes"] == [{"pid": os.getpid(), "name": name, "used_bytes": 3 * GIB}]
    assert last["processes"] == [{"pid": 4194304, "name": "[not found]", "used_bytes": GIB}]
    assert {k: first[k] for k in list(first)[5:-1]} == {
        "capability": "9.0", "total_bytes": 16 * GIB, "used_bytes": 3 * GIB, "load_percent": 30, "memory_load_percent": 7,
        "temperature_c": 41, "power_mw": 123999, "power_limit_mw": 700000, "performance_state": 2, "sm_mhz": 1755,
        "memory_mhz": 2619, "uncorrected_ecc_errors": 3,
    }  # fmt: skip
    table = smi(env).stdout.splitlines()
    assert {len(line) for line in table if line} == {90}
    assert "|   0  Card of the test                    | 00000000:A0:00.0       |                30% |" in table
    assert "|      41C   P2    123W / 700W             |     3072MiB / 16384MiB |                  3 |" in table
    assert sum(str(os.getpid()) in line for line in table) == 1
    assert smi(env, "-L").stdout == "".join(f"GPU {g['index']}: Card of the test (UUID: {g['uuid']})\n" for g in told["vgpus"])
    assert smi(env | {"ORION_VGPU": "4"}, "-L").stdout.count("\n") == 4
    assert "    Temperature                           : 41 C\n" in smi(env, "-q").stdout


def test_orion_smi_without_figures(server: Server, env: dict[str, str]) -> None:
    server.values = {}
    told = json.loads(smi(env, "--json").stdout)["vgpus"][0]
    assert told["temperature_c"] is told["power_mw"] is told["uncorrected_ecc_errors"] is None
    assert "N/A" in smi(env).stdout and "No running processes found" in smi(env).stdout


@pytest.mark.parametrize("args", [("-x",), ("",), ("-L", "-q")])
def test_orion_smi_names_what_it_does_not_know(env: dict[str, str], args: tuple[str, ...]) -> None:
    done = smi(env, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"orion-smi: unknown option '{args[-1]}'\nUsage: orion-smi")


def test_orion_smi_without_a_server(env: dict[str, str]) -> None:
    done = smi(env | {"ORION_SERVER": "127.0.0.1:1"})
    assert (done.returncode, done.stdout) == (1, "")
    library, own = done.stderr.splitlines()
    assert library.startswith("orion: no vGPU: no Orion server answers (127.0.0.1:1: Connection refused)")
    assert own == ("orion-smi: the vGPUs cannot be shown: Driver Not Loaded. `orion-check runtime client` looks for the cause")


def test_the_monitor_reads_a_library_of_nvml(server: Server, env: dict[str, str]) -> None:
    """What oriond starts beside its workers on an NVIDIA host, here before the guest's library."""
    server.values = given()
    server.processes = (f"77 0 0 {GIB} {GIB} 30 7", f"78 0 0 {GIB} {GIB} 20 1")
    done = subprocess.run([sys.executable, "-m", "orion_virt.gpu.monitor", "0000:A0:00.0"], input="\n\n", env=env, text=True,
                          capture_output=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    first, _ = (json.loads(line) for line in done.stdout.splitlines())
    live = {str(n): v for n, v in server.values.items() if n in figures.LIVE}
    assert first["figures"] == [live] and len(live) > 30
    assert first["load"] == [{"77": [30, 7], "78": [20, 1]}]
    failed = subprocess.run([sys.executable, "-m", "orion_virt.gpu.monitor", "0000:01:00.0"], input="\n", env=env, text=True,
                            capture_output=True, timeout=180, check=False)
    assert failed.returncode == 1 and failed.stderr == "the cards' sensors cannot be read: Not Found\n"
