# SPDX-License-Identifier: Apache-2.0
"""NVML in a guest, through pynvml and the real library: the same vGPUs as CUDA's, and nobody else's processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import host as hosts
import pytest
from host import Host

MIB = 1 << 20
START = "import ctypes, json, os, sys, threading, time\nimport pynvml as n\n"
# Allocates ORION_VGPU times MIB on each device and holds it until its input ends.
HOLDER = """
import ctypes, sys
cu = ctypes.CDLL("libcuda.so.1")
def check(name, *args):
    result = getattr(cu, name)(*args)
    assert result == 0, (name, result)
check("cuInit", 0)
count = ctypes.c_int()
check("cuDeviceGetCount", ctypes.byref(count))
for device in range(count.value):
    context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
    check("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    check("cuCtxSetCurrent", context)
    check("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(int(sys.argv[1]) << 20))
print("READY", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with hosts.running(tmp_path_factory.mktemp("nvml"), region_mib=64) as running:
        yield running


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with two cards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Host, "server_env", property(lambda self, kept=Host.server_env.fget: kept(self) | {"ORION_SIM_GPUS": "2"}))
        with hosts.running(tmp_path_factory.mktemp("cards"), region_mib=64) as running:
            yield running


def ask(host: Host, script: str, env: dict[str, str] | None = None, **variables: object) -> Any:
    """Runs the script, whose last line prints JSON; returns that."""
    done = host.run([sys.executable, "-c", START + script], env=env, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def holding(env: dict[str, str], mib: int, **variables: object) -> Iterator[subprocess.Popen[str]]:
    """A CUDA process with memory; ends before the block does."""
    full = env | {key: str(value) for key, value in variables.items()}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(mib)], env=full, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "READY\n"
        yield process
    assert process.returncode == 0


PROCESSES = """
n.nvmlInit()
handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
print(json.dumps([{"used": n.nvmlDeviceGetMemoryInfo(h).used, "total": n.nvmlDeviceGetMemoryInfo(h).total,
                   "pids": {p.pid: p.usedGpuMemory for p in n.nvmlDeviceGetComputeRunningProcesses(h)}} for h in handles]))
"""


def seen(host: Host, env: dict[str, str], wanted: int, vgpus: int = 1, **variables: object) -> list[dict[str, Any]]:
    """What another process sees, once the booked memory of so many vGPUs has reached oriond (a second at most)."""
    end = time.monotonic() + 10
    while True:
        found = ask(host, PROCESSES, env, **variables)
        if sum(vgpu["used"] >= wanted for vgpu in found) >= vgpus or time.monotonic() > end:
            return found
        time.sleep(0.2)


# ---- the same vGPUs as CUDA's ----

IDENTITY = """
cu = ctypes.CDLL("libcuda.so.1")
assert cu.cuInit(0) == 0
n.nvmlInit()
count, found = ctypes.c_int(), []
cu.cuDeviceGetCount(ctypes.byref(count))
for i in range(count.value):
    name, bus, uuid = (ctypes.create_string_buffer(96) for _ in range(3))
    total, major, minor = ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
    cu.cuDeviceGetName(name, 96, i); cu.cuDeviceGetPCIBusId(bus, 96, i); cu.cuDeviceGetUuid(uuid, i)
    cu.cuDeviceTotalMem_v2(ctypes.byref(total), i)
    cu.cuDeviceComputeCapability(ctypes.byref(major), ctypes.byref(minor), i)
    h = n.nvmlDeviceGetHandleByPciBusId(bus.value.decode())
    raw = uuid.raw[:16].hex()
    text = f"GPU-{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
    assert n.nvmlDeviceGetUUID(h) == text, (n.nvmlDeviceGetUUID(h), text)
    assert n.nvmlDeviceGetName(h) == name.value.decode()
    assert n.nvmlDeviceGetMemoryInfo(h).total == total.value
    assert n.nvmlDeviceGetCudaComputeCapability(h) == (major.value, minor.value) != (0, 0)
    index = n.nvmlDeviceGetIndex(h)
    for other in (n.nvmlDeviceGetHandleByUUID(text), n.nvmlDeviceGetHandleBySerial(n.nvmlDeviceGetSerial(h)),
                  n.nvmlDeviceGetHandleByPciBusId(n.nvmlDeviceGetPciInfo(h).busId), n.nvmlDeviceGetHandleByIndex(index)):
        assert n.nvmlDeviceGetIndex(other) == index
    pci = n.nvmlDeviceGetPciInfo(h)
    assert pci.busIdLegacy == bus.value.decode() and pci.bus == int(bus.value[5:7], 16)
    found.append(index)
version = ctypes.c_int()
cu.cuDriverGetVersion(ctypes.byref(version))
assert n.nvmlSystemGetCudaDriverVersion() == version.value
print(json.dumps([n.nvmlDeviceGetCount(), found, len({n.nvmlDeviceGetSerial(n.nvmlDeviceGetHandleByIndex(i)) for i in range(3)})]))
"""


@pytest.mark.parametrize("transport", ["env", "tcp_env"])
def test_the_same_vgpus_as_cudas(host: Host, transport: str) -> None:
    env = getattr(host, transport) | {"ORION_VGPU": "3", "ORION_GMEM": "700"}
    assert ask(host, IDENTITY, env) == [3, [0, 1, 2], 3]
    # CUDA_VISIBLE_DEVICES is CUDA's alone
    assert ask(host, IDENTITY, env, CUDA_VISIBLE_DEVICES="2,0") == [3, [2, 0], 3]


def test_it_takes_no_vgpu(host: Host) -> None:
    script = "n.nvmlInit()\nprint(n.nvmlDeviceGetCount())\ntime.sleep(0.5)\n"
    with subprocess.Popen([sys.executable, "-uc", START + script], env=host.env | {"ORION_VGPU": "32"}, text=True,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == "32\n"
        assert host.status()["channels"] == []
    assert process.returncode == 0


# ---- memory, processes, load ----


@pytest.mark.parametrize("transport", ["env", "tcp_env"])
def test_memory_and_processes_are_the_guests(host: Host, transport: str) -> None:
    env = getattr(host, transport)
    with holding(env, 300, ORION_VGPU=2, ORION_GMEM=900) as process:
        found = seen(host, env, 300 * MIB, 2, ORION_VGPU=2, ORION_GMEM=1000)
        assert [vgpu["total"] for vgpu in found] == [1000 * MIB] * 2
        for vgpu in found:
            assert 300 * MIB <= vgpu["used"] < 400 * MIB and vgpu["pids"] == {str(process.pid): vgpu["used"]}
    assert hosts.wait_for(host.idle)
    after = ask(host, PROCESSES, env, ORION_VGPU=2)
    assert [(vgpu["used"], vgpu["pids"]) for vgpu in after] == [(0, {}), (0, {})]


def test_a_process_counts_on_the_vgpu_that_it_sees(host: Host) -> None:
    with holding(host.env, 200, ORION_VGPU=3, ORION_GMEM=500, CUDA_VISIBLE_DEVICES="2") as process:
        found = seen(host, host.env, 200 * MIB, ORION_VGPU=3, ORION_GMEM=500)
    assert [list(vgpu["pids"]) for vgpu in found] == [[], [], [str(process.pid)]]


def test_several_processes_together_use_no_more_than_there_is(host: Host) -> None:
    with holding(host.env, 400, ORION_GMEM=500), holding(host.env, 400, ORION_GMEM=500):
        found = seen(host, host.env, 500 * MIB, ORION_GMEM=500)[0]
    assert found["used"] == found["total"] == 500 * MIB
    assert len(found["pids"]) == 2 and min(found["pids"].values()) >= 400 * MIB


def test_other_domains_are_not_seen(host: Host) -> None:
    other = str(uuid.uuid4())
    region = Path(f"/dev/shm/orion-{other}")
    assert host.command("region-create", uuid=other, size_mib=16)["ok"]
    try:
        with holding(host.env, 100, ORION_GMEM=200):
            seen(host, host.env, 100 * MIB)
            for env in (host.env | {"ORION_REGION": str(region)}, host.tcp_env):
                found = ask(host, PROCESSES, env)
                assert [(vgpu["used"], vgpu["pids"]) for vgpu in found] == [(0, {})]
    finally:
        assert host.command("region-remove", uuid=other)["ok"]


LOAD = """
cu = ctypes.CDLL("libcuda.so.1")
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
assert not (cu.cuInit(0) or cu.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or cu.cuCtxSetCurrent(context)
            or cu.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(64 << 20)))
end, busy, samples = time.monotonic() + 20, 0, []
while time.monotonic() < end and not (busy and samples):
    assert not (cu.cuMemsetD8_v2(pointer, ctypes.c_ubyte(1), ctypes.c_size_t(64 << 20)) or cu.cuCtxSynchronize())
    busy = max(busy, n.nvmlDeviceGetUtilizationRates(h).gpu)
    try:
        samples = [s.smUtil for s in n.nvmlDeviceGetProcessUtilization(h, 0) if s.pid == os.getpid() and s.smUtil]
    except n.NVMLError_NotFound:
        pass  # what the server said was from before this process had its context
print(json.dumps([busy, samples]))
"""


def test_load_is_the_processes_own(host: Host) -> None:
    busy, samples = ask(host, LOAD)
    assert 1 <= busy <= 100 and 1 <= samples[0] <= 100


NAMES = """
n.nvmlInit()
def code(f, *args):
    try:
        f(*args)
    except n.NVMLError as e:
        return e.value
    return 0
open("/proc/self/comm", "w").write("renamed")
print(json.dumps([n.nvmlSystemGetProcessName(os.getpid()), code(n.nvmlSystemGetProcessName, 4194304),
                  n.nvmlSystemGetProcessName(2) if os.path.exists("/proc/2") else ""]))
"""


def test_names_of_processes(host: Host) -> None:
    own, missing, _ = ask(host, NAMES)
    assert own == sys.executable and missing == 6


# ---- life and errors ----

LIFE = """
lib = ctypes.CDLL("libnvidia-ml.so.1")
out = ctypes.c_uint(77)
codes = [lib.nvmlDeviceGetCount_v2(ctypes.byref(out)), lib.nvmlShutdown(), lib.nvmlDeviceGetTemperature(None, 0, ctypes.byref(out)),
         lib.nvmlDeviceGetSamples(), lib.nvmlDeviceGetName(None, None, 0)]
codes += [lib.nvmlInit_v2(), lib.nvmlInit(), lib.nvmlInitWithFlags(1), lib.nvmlShutdown(), lib.nvmlShutdown()]
codes += [lib.nvmlDeviceGetCount_v2(ctypes.byref(out)), lib.nvmlShutdown(), lib.nvmlDeviceGetCount_v2(ctypes.byref(out))]
codes += [lib.nvmlInit_v2(), lib.nvmlDeviceGetCount_v2(ctypes.byref(out)), out.value]
print(json.dumps(codes))
"""


def test_init_and_shutdown_are_counted(host: Host) -> None:
    assert ask(host, LIFE) == [1, 1, 1, 1, 1] + [0, 0, 0, 0, 0] + [0, 0, 1] + [0, 0, 1]


ERRORS = """
lib = ctypes.CDLL("libnvidia-ml.so.1")
lib.nvmlDeviceGetHandleByIndex_v2.argtypes = [ctypes.c_uint, ctypes.c_void_p]
lib.nvmlInit_v2()
h, text, number, big = ctypes.c_void_p(), ctypes.create_string_buffer(96), ctypes.c_uint(), ctypes.c_ulonglong()
lib.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(h))
u = ctypes.byref(number)
codes = {
    "index": lib.nvmlDeviceGetHandleByIndex_v2(1, ctypes.byref(h)),
    "uuid": lib.nvmlDeviceGetHandleByUUID(b"GPU-none", ctypes.byref(h)),
    "bus": lib.nvmlDeviceGetHandleByPciBusId_v2(b"0000:00:01.0", ctypes.byref(h)),
    "no bus": lib.nvmlDeviceGetHandleByPciBusId_v2(b"nonsense", ctypes.byref(h)),
    "null": lib.nvmlDeviceGetCount_v2(None),
    "handle": lib.nvmlDeviceGetTemperature(ctypes.c_void_p(4096), 0, u),
    "odd handle": lib.nvmlDeviceGetTemperature(ctypes.c_void_p(h.value + 1), 0, u),
    "past": lib.nvmlDeviceGetTemperature(ctypes.c_void_p(h.value + 4), 0, u),
    "sensor": lib.nvmlDeviceGetTemperature(h, 1, u),
    "clock": lib.nvmlDeviceGetClockInfo(h, 4, u),
    "fan": lib.nvmlDeviceGetFanSpeed(h, u),
    "short": lib.nvmlDeviceGetName(h, text, 5),
    "setting": lib.nvmlDeviceSetPersistenceMode(h, 1),
    "version": lib.nvmlDeviceGetMemoryInfo_v2(h, ctypes.create_string_buffer(64)),
    "export": lib.nvmlInternalGetExportTable(ctypes.byref(h), b"0123456789abcdef"),
    "ok": lib.nvmlDeviceGetTemperature(ctypes.c_void_p(0), 0, u),
}
lib.nvmlErrorString.restype = ctypes.c_char_p
print(json.dumps([codes, [lib.nvmlErrorString(i).decode() for i in (0, 1, 3, 9, 999, 12345)]]))
"""


def test_errors(host: Host) -> None:
    codes, texts = ask(host, ERRORS)
    assert codes == {
        "index": 2, "uuid": 6, "bus": 6, "no bus": 2, "null": 2, "handle": 2, "odd handle": 2, "past": 2, "sensor": 2, "clock": 2,
        "fan": 3, "short": 7, "setting": 3, "version": 25, "export": 0, "ok": 2,
    }  # fmt: skip
    assert texts == ["Success", "Uninitialized", "Not Supported", "Driver Not Loaded", "Unknown Error", "Unknown Error"]


def failing(host: Host, **variables: object) -> tuple[str, str]:
    done = host.run([sys.executable, "-c", "import pynvml\npynvml.nvmlInit()"], **variables)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1], done.stderr


def test_what_is_wrong_is_said(host: Host) -> None:
    last, text = failing(host, ORION_SERVER="127.0.0.1:1")
    assert last == "pynvml.NVMLError_DriverNotLoaded: Driver Not Loaded"
    assert "no Orion server answers (127.0.0.1:1: Connection refused)" in text and "does oriond run" in text
    last, text = failing(host, ORION_VGPU="many")
    assert last == "pynvml.NVMLError_InvalidArgument: Invalid Argument" and "ORION_VGPU=many is not valid" in text


THREADS = """
n.nvmlInit()
failed = []
def work():
    try:
        for _ in range(30):
            n.nvmlInit()
            h = n.nvmlDeviceGetHandleByIndex(0)
            assert n.nvmlDeviceGetTemperature(h, 0) == 30
            assert n.nvmlDeviceGetMemoryInfo(h).total
            n.nvmlShutdown()
    except Exception as error:
        failed.append(repr(error))
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
pid = os.fork()
if pid == 0:
    h = n.nvmlDeviceGetHandleByIndex(0)
    os._exit(0 if n.nvmlDeviceGetTemperature(h, 0) == 30 else 1)
status = os.waitpid(pid, 0)[1]
for t in threads: t.join()
print(json.dumps([failed, status]))
"""


def test_threads_and_children(host: Host) -> None:
    assert ask(host, THREADS) == [[], 0]


PATIENT = """
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
for _ in sys.stdin:
    time.sleep(1.1)  # longer than a failure is remembered
    try:
        print(n.nvmlDeviceGetTemperature(h, 0), n.nvmlDeviceGetMaxClockInfo(h, 1), flush=True)
    except n.NVMLError as error:
        print(error.value, n.nvmlDeviceGetMaxClockInfo(h, 1), flush=True)
"""


def test_a_program_goes_on_when_oriond_comes_back(oriond_env: Host) -> None:
    """And in between it knows what never changes."""
    with subprocess.Popen([sys.executable, "-c", START + PATIENT], env=oriond_env.env, stdin=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None

        def told() -> str:
            print(file=process.stdin, flush=True)
            return process.stdout.readline()

        assert told() == "30 1000\n"
        assert oriond_env.stop() == 0
        assert told() == "999 1000\n"
        oriond_env.start()
        assert told() == "30 1000\n"
        process.stdin.close()
    assert process.returncode == 0


TOPOLOGY = """
n.nvmlInit()
a, b = (n.nvmlDeviceGetHandleByIndex(i) for i in range(2))
fabric = n.c_nvmlGpuFabricInfoV_t()
print(json.dumps([
    n.nvmlDeviceGetTopologyCommonAncestor(a, b), [n.nvmlDeviceGetP2PStatus(a, b, i) for i in range(5)],
    [n.nvmlDeviceGetIndex(h) for h in n.nvmlDeviceGetTopologyNearestGpus(a, 0)], n.nvmlDeviceGetMigMode(a),
    n.nvmlSystemGetConfComputeState().ccFeature, n.nvmlDeviceGetCpuAffinity(a, 16)[0] == (1 << os.cpu_count()) - 1,
    n.nvmlDeviceGetComputeMode(a), n.nvmlDeviceGetMaxMigDeviceCount(a)]))
"""


def test_two_vgpus_of_one_card(host: Host) -> None:
    assert ask(host, TOPOLOGY, ORION_VGPU=2, ORION_GMEM=500) == [0, [0, 0, 5, 0, 0], [1], [0, 0], 0, True, 0, 0]


PEERS = """
cu = ctypes.CDLL("libcuda.so.1")
n.nvmlInit()
a, b = (n.nvmlDeviceGetHandleByIndex(i) for i in range(2))
can, values = ctypes.c_int(), []
assert not (cu.cuInit(0) or cu.cuDeviceCanAccessPeer(ctypes.byref(can), 0, 1))
print(json.dumps([n.nvmlDeviceGetTopologyCommonAncestor(a, b), n.nvmlDeviceOnSameBoard(a, b),
                  [n.nvmlDeviceGetP2PStatus(a, b, i) for i in range(5)], can.value]))
"""


def test_vgpus_of_two_cards(cards: Host) -> None:
    """Peer access as CUDA has it, where the host's cards have it."""
    assert ask(cards, PEERS, ORION_VGPU=2, ORION_GMEM=7000) == [50, 0, [0, 0, 5, 0, 0], 1]
    assert ask(cards, PEERS, ORION_VGPU=2, ORION_GMEM=700) == [0, 1, [0, 0, 5, 0, 0], 1]
