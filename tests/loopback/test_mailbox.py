# SPDX-License-Identifier: Apache-2.0
"""Clients that no network joins to the host: everything goes through their region, and every death is noticed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import host as hosts
import programs
import pytest
from host import Host, processes_of_session, wait_for

from orion_virt import layout

HERE = Path(__file__).parent
LOST = "the vGPU is lost: "
# Has a context, says READY, then does nothing; `turn` comes with each line of its input.
IDLE = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import client
pointer = client.setup()
print("READY", flush=True)
for line in sys.stdin:
    print(client.turn(pointer, 7), flush=True)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    config = "[server]\nvgpu_count = 16\n"
    with hosts.running(tmp_path_factory.mktemp("mailbox"), config=config, region_mib=256, network=False) as running:
        yield running


def once(host: Host, **variables: object) -> subprocess.CompletedProcess[str]:
    return host.run([sys.executable, HERE / "client.py", "once"], **variables)


def works(host: Host, **variables: object) -> None:
    done = once(host, **variables)
    assert (done.returncode, done.stdout) == (0, "READY True\nDONE\n"), done.stderr


@contextlib.contextmanager
def client(host: Host, program: str = IDLE, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a context; killed at the end unless it has ended."""
    process = subprocess.Popen([sys.executable, "-c", program], env=host.env | variables, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdout.readline() == "READY\n", process.communicate()[1]
        yield process
    finally:
        process.kill()
        process.communicate()


def go_on(process: subprocess.Popen[str]) -> str:
    """Another turn; what it printed."""
    assert process.stdin and process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def channel_of(host: Host, process: subprocess.Popen[str]) -> dict[str, object] | None:
    return next((c for c in host.status()["channels"] if c["pid"] == process.pid), None)


def ends(host: Host, process: subprocess.Popen[str]) -> bool:
    return wait_for(lambda: channel_of(host, process) is None)


def test_through_the_region_alone(host: Host) -> None:
    works(host)
    assert "over shared memory alone" in host.output()
    status = host.status()["regions"][0]
    assert status["server_addrs"] == [] and status["controller_addr"] == ""


def test_orion_check_knows_that_way(host: Host, tmp_path: Path) -> None:
    """No controller at an address is no fault where oriond asks it for the guest."""
    for source in (hosts.LIB / "guest" / "orion-probe", hosts.ROOT / "guest-agent" / "installer" / "orion-check"):
        shutil.copy(source, tmp_path)
    done = host.run(["sh", tmp_path / "orion-check", "runtime", "client"])
    assert done.returncode == 0 and "Orion Server asks it, through the shared memory device." in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("program", ["life", "order", "output"])
def test_programs_say_what_they_say_over_a_connection(host: Host, program: str, tmp_path: Path) -> None:
    made = programs.compiled(tmp_path, program)
    native = programs.without_vgpu() | {"LD_LIBRARY_PATH": str(hosts.LIB / "simgpu")}
    for body in programs.names(program):
        programs.same(made, body, native, host.env)


@pytest.mark.parametrize("case", ["copies", "registered", "callbacks", "threads"])
def test_memory_and_host_functions(host: Host, case: str) -> None:
    done = host.run([sys.executable, HERE / "memory_client.py", case], timeout=120)
    assert done.returncode == 0 and done.stdout.endswith("OK\n"), done.stdout + done.stderr


def test_several_processes_at_once(host: Host) -> None:
    running = [subprocess.Popen([sys.executable, HERE / "client.py", "loop", "3"], env=host.env | {"ORION_GMEM": "64"}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(12)]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "READY True\nDONE\n"), err


def test_a_refusal_has_the_controller_s_reason(host: Host) -> None:
    through = once(host, ORION_VGPU=2, ORION_GMEM=9000000)
    over_tcp = once(host, ORION_VGPU=2, ORION_GMEM=9000000, ORION_CONTROLLER=host.controller)
    reasons = [next(line for line in done.stderr.splitlines() if "refuses 2 vGPU" in line).partition("ORION_GMEM: ")[2]
               for done in (through, over_tcp)]
    assert through.returncode == over_tcp.returncode == 1
    assert reasons[0] and reasons[0] == reasons[1]


def test_what_is_asked_for_is_given(host: Host) -> None:
    with client(host, ORION_VGPU="2", ORION_GMEM="100") as process:
        found = channel_of(host, process)
        assert found and [d["memory_bytes"] >> 20 for d in found["devices"]] == [100, 100]  # type: ignore[attr-defined]


def test_processes_of_a_group_share_an_allocation(host: Host) -> None:
    with client(host, ORION_GROUP="job", ORION_GMEM="1000") as one, client(host, ORION_GROUP="job", ORION_GMEM="1000") as other:
        first, second = channel_of(host, one), channel_of(host, other)
        assert first and second and first["allocation"] == second["allocation"]
        assert (go_on(one), go_on(other)) == ("True", "True")


def test_waiting_for_a_vgpu(host: Host) -> None:
    """oriond lets itself be made to wait for the guest."""
    with client(host, ORION_GMEM="7500") as first:
        waits = subprocess.Popen([sys.executable, HERE / "client.py", "once"], env=host.env | {"ORION_GMEM": "7500", "ORION_WAIT": "60"},
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert waits.stderr and any("(ORION_WAIT)" in line for line in waits.stderr)
        first.kill()
        out, err = waits.communicate(timeout=180)
    assert (waits.returncode, out) == (0, "READY True\nDONE\n"), err


def test_nvml(host: Host) -> None:
    with client(host) as process:
        done = host.run([hosts.LIB / "guest" / "orion-smi", "--json"])
    assert done.returncode == 0 and f'"pid": {process.pid},' in done.stdout, done.stdout + done.stderr


# ---- deaths ----


def test_a_killed_client(host: Host) -> None:
    with client(host) as process:
        process.kill()
        assert ends(host, process)
    works(host)


def test_a_client_that_leaves_without_a_word(host: Host) -> None:
    with client(host, "import os\n" + IDLE.replace("for line", "os._exit(0) if sys.stdin.readline() else 0\nfor line")) as process:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.wait(10) == 0 and ends(host, process)


def test_a_client_that_becomes_another_program(host: Host) -> None:
    with client(host, "import os\n" + IDLE.replace("for line", "sys.stdin.readline(); os.execlp('sleep', 'sleep', '60')\nfor line")) as process:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
        assert ends(host, process) and process.poll() is None


def test_a_stopped_client_is_not_dead(host: Host) -> None:
    with client(host) as process:
        process.send_signal(signal.SIGSTOP)
        for _ in range(20):
            works(host)  # others come and go
        assert channel_of(host, process)
        process.send_signal(signal.SIGCONT)
        assert go_on(process) == "True"


def test_a_child_of_a_fork_ends_without_harm(host: Host) -> None:
    forking = IDLE.replace("for line", """
import os, time
child = os.fork()
if not child:
    os._exit(client.cu.cuCtxSynchronize())
assert os.waitpid(child, 0)[1] >> 8 == 3
if not os.fork():
    os.closerange(0, 3)  # outlives its parent
    time.sleep(30)
    os._exit(0)
for line""").replace('print("READY", flush=True)', "").replace("for line", 'print("READY", flush=True)\nfor line', 1)
    with client(host, forking) as process:
        assert go_on(process) == "True"
        process.kill()
        assert ends(host, process)


def test_a_killed_worker(host: Host) -> None:
    with client(host) as process:
        found = channel_of(host, process)
        assert found
        os.kill(int(found["worker"]), signal.SIGKILL)  # type: ignore[call-overload]
        assert ends(host, process)
        assert go_on(process).endswith("_v2 46")
        assert process.stderr and LOST in process.stderr.read()
    works(host)


def waiting(host: Host) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, HERE / "client.py", "hold", "60"], env=host.env, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Host]:
    """A host that may be killed."""
    running = Host(tmp_path, network=False)
    running.start()
    try:
        assert running.command("region-create", uuid=running.uuid, size_mib=64, network=False)["ok"]
        yield running
    finally:
        running.kill()
        running.region.unlink(missing_ok=True)


def test_a_killed_daemon_and_worker(fresh: Host) -> None:
    """In one moment, so that only the kernel has a last word."""
    with waiting(fresh) as process:
        assert process.stdout and process.stdout.readline() == "READY True\n"
        for pid in processes_of_session(fresh.process.pid):
            os.kill(pid, signal.SIGSTOP)
        fresh.kill()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1 and "cuCtxSynchronize 46" in out and LOST in err, out + err
    patched(fresh, heartbeat=0)  # as after a minute
    nobody = once(fresh)
    assert nobody.stdout == "cuInit 100\n" and "through the region: oriond does not answer" in nobody.stderr
    fresh.kill()
    fresh.start()
    works(fresh)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_daemon_takes_up_what_was(fresh: Host, number: int) -> None:
    """Over the slot that it had; who ends while no daemon is there is known to have ended."""
    with client(fresh) as process, client(fresh) as dies:
        for _ in range(2):
            fresh.process.send_signal(number)
            fresh.process.wait(20)
            assert go_on(process) == "True"
            dies.kill()
            fresh.start()
            assert go_on(process) == "True" and [c["pid"] for c in fresh.status()["channels"]] == [process.pid]
            works(fresh)
        process.kill()
        assert ends(fresh, process)
    assert wait_for(fresh.idle)


def test_a_daemon_that_is_stopped_for_good(fresh: Host) -> None:
    with client(fresh) as process:
        fresh.process.send_signal(signal.SIGINT)
        assert fresh.process.wait(20) == 0 and go_on(process).endswith("_v2 46")


def test_a_removed_region(fresh: Host) -> None:
    with client(fresh) as process:
        assert fresh.command("region-remove", uuid=fresh.uuid)["channels_closed"] == 1
        assert go_on(process).endswith("_v2 46")


# ---- other ways, other versions ----


def patched(host: Host, **fields: object) -> None:
    """The header with other contents, as if another oriond had written it."""
    with open(host.region, "r+b") as file:
        header = layout.Header.from_buffer_copy(file.read(layout.ctypes.sizeof(layout.Header)))
        for name, value in fields.items():
            if name == "server":
                header.server_addr[0].value = value
            else:
                setattr(header, name, value)
        file.seek(0)
        file.write(bytes(header))


@pytest.fixture(params=["refused", "silent"])
def unreachable(host: Host, request: pytest.FixtureRequest) -> Iterator[Host]:
    """The header names an address where nobody listens, or one that drops what comes, as a firewall does."""
    with contextlib.ExitStack() as open_:
        taken = open_.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))
        if request.param == "silent":
            taken.listen(0)
            for _ in range(2):  # its queue is full
                waiting = open_.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(taken.getsockname())
        addr = f"127.0.0.1:{taken.getsockname()[1]}".encode()
        patched(host, server=addr, controller_addr=addr)
        yield host
    patched(host, server=b"", controller_addr=b"")


def test_addresses_that_nobody_answers(unreachable: Host) -> None:
    works(unreachable)
    channel = unreachable.output().rpartition(" over ")[2]
    assert channel.startswith("shared memory alone")


def test_an_address_that_a_user_gave_is_the_only_one(unreachable: Host) -> None:
    done = once(unreachable, ORION_SERVER="127.0.0.1:1")
    assert done.stdout == "cuInit 100\n" and "127.0.0.1:1: Connection refused" in done.stderr
    assert "through the region" not in done.stderr


def test_a_network_is_used_where_there_is_one(host: Host) -> None:
    patched(host, server=host.server.encode(), controller_addr=host.controller.encode())
    try:
        works(host)
    finally:
        patched(host, server=b"", controller_addr=b"")
    assert host.output().rpartition(" over ")[2].startswith("shared memory, ")


def test_a_host_without_a_mailbox(host: Host) -> None:
    """An older one does not set the bit, and is then reached as before or not at all."""
    patched(host, features=0)
    try:
        done = once(host)
        assert done.stdout == "cuInit 100\n" and "through the region" not in done.stderr, done.stderr
        works(host, ORION_SERVER=host.server, ORION_CONTROLLER=host.controller)
    finally:
        patched(host, features=layout.FEATURE_MAILBOX)
    works(host)


def test_features_of_a_newer_host_are_ignored(host: Host) -> None:
    patched(host, features=1 << 63 | layout.FEATURE_MAILBOX)
    try:
        works(host)
    finally:
        patched(host, features=layout.FEATURE_MAILBOX)


def test_slots_of_the_dead_are_found(host: Host) -> None:
    """Every slot is a dead owner's, and nobody rang when they died."""
    fd = os.open(host.region, os.O_RDWR)
    try:
        for slot in range(layout.MAIL_SLOTS):
            os.pwrite(fd, struct.pack("<I", layout.OWNER_DIED), layout.MAILBOX_OFF + 512 * (slot + 1))
    finally:
        os.close(fd)
    works(host)
