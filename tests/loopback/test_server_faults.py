# SPDX-License-Identifier: Apache-2.0
"""Whatever a worker or a client does, everything comes back: the daemon in this process, workers by script."""

import asyncio
import hashlib
import hmac
import json
import os
import socket
import struct
import uuid
from pathlib import Path

import host
import pytest
from controllers import SECRET, Client, serving

from orion_virt.config import ServerConfig
from orion_virt.controller.sqlite_store import SqliteStore
from orion_virt.gpu.inventory import Gpu, Inventory
from orion_virt.server import blocks, listening, workers
from orion_virt.server.daemon import Daemon

MIB = 1 << 20
SCRIPT = str(Path(__file__).with_name("scripted_worker.py"))
INVENTORY = Inventory(True, "none", 13000, (Gpu(0, "card", 8000 * MIB, 0, {1: 1024}),))


@pytest.fixture
def controller(tmp_path):
    """Its port."""
    with serving(lambda: SqliteStore(tmp_path / "controller.db")) as port:
        yield port


@pytest.fixture
def serve(tmp_path, controller, monkeypatch):
    """`serve(body)` runs `await body(bench)` against a daemon, and checks that nothing is left."""
    for name in ("run", "log", "state"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"ORION_{name.upper()}", str(tmp_path / name))
    monkeypatch.setattr(workers, "WORKER", (SCRIPT,))
    config = ServerConfig(
        listen_port=host.free_port(),
        bind_addr=("127.0.0.1",),
        controller_addr=f"127.0.0.1:{controller}",
        libvirt_attach="off",
        shm_path_base=str(tmp_path),
        shm_budget_bytes=64 * MIB,
    )

    def run(body):
        asyncio.run(asyncio.wait_for(_bench(config, Client(controller), body), 30))

    return run


async def _bench(config, controller, body):
    daemon = Daemon(config, INVENTORY, SECRET)
    await daemon.start()
    bench = Bench(daemon, controller)
    try:
        await bench.until(lambda: daemon.accounts.is_registered)
        await daemon._region_create({"uuid": bench.uuid, "size_mib": 8})
        fds = len(os.listdir("/proc/self/fd"))
        await body(bench)
        await bench.until(lambda: not len(daemon.channels_part))
        assert daemon.regions.get(bench.uuid).extents.nr_used == 0 and not bench.allocations()
        await bench.until(lambda: daemon.pool.nr_warm == 1 and len(os.listdir("/proc/self/fd")) <= fds)
        await daemon._region_remove({"uuid": bench.uuid})
    finally:
        await daemon.stop()


class Bench:
    def __init__(self, daemon, controller):
        self.daemon, self.controller, self.uuid = daemon, controller, str(uuid.uuid4())

    def allocations(self):
        return self.controller.json("/allocations")["allocations"]

    async def until(self, true, seconds=5):
        for _ in range(int(seconds / 0.02)):
            if true():
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it did not come to pass")

    @property
    def used(self):
        return self.daemon.regions.get(self.uuid).extents.nr_used

    async def client(self, shared=True, **more):
        """An open channel: (reader, writer, the worker's start message)."""
        allocation = self.controller.json("/service?nvidia_vgpu=1&memory=100")["uuid"]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.daemon.config.listen_port)
        identity = self.daemon.regions.get(self.uuid).identity
        fields = {"transport": "tcp", "pid": 1, "ops": "00", "allocation": allocation, **more}
        if shared:
            fields |= {"transport": "shm", "domain": self.uuid, "generation": identity.generation, "base": "0x200000000000"}
        hello = blocks.build("HELLO", fields)
        writer.write(hello)
        challenge = blocks.parse(await reader.readuntil(b"\n\n"))
        proof = hmac.new(identity.token, bytes.fromhex(challenge.get("nonce")) + hello, hashlib.sha256).hexdigest()
        writer.write(blocks.build("AUTH", {"hmac": proof if shared else "-"}))
        answer = blocks.parse(await reader.readuntil(b"\n\n"))
        if answer.verb != "WELCOME":
            writer.close()
            await writer.wait_closed()
            raise AssertionError(answer.fields)
        return reader, writer, json.loads(await reader.readline())


async def tell(writer, text):
    writer.write(text.encode())
    await writer.drain()


def test_start_message(serve):
    async def body(bench):
        _, writer, message = await bench.client()
        assert message["transport"] == "shm" and message["base"] == 0x200000000000 and message["fds"] == 4
        assert message["region_bytes"] == 8 * MIB and message["block"] == 2 * MIB
        assert message["devices"] == [{"ordinal": 0, "memory": 100 * MIB, "context": 0}]
        assert Path(message["log"]).stat().st_mode & 0o777 == 0o600
        writer.close()

    serve(body)


def test_tcp_has_no_region(serve):
    async def body(bench):
        reader, writer, message = await bench.client(shared=False)
        assert message["fds"] == 3 and bench.used == 0
        await tell(writer, "ask 1 4096 0")
        assert (await reader.readline()).split()[1] == b"-6"
        writer.close()

    serve(body)


def test_driver_variables_get_a_cold_worker(serve):
    async def body(bench):
        more = {"env.CUDA_MODULE_LOADING": "EAGER", "env.CUDA_INJECTION64_PATH": "/tmp/x.so", "env.LD_PRELOAD": "x"}
        _, writer, message = await bench.client(**more)
        assert message["seen"]["CUDA_MODULE_LOADING"] == "EAGER" and message["env"] == {"CUDA_MODULE_LOADING": "EAGER"}
        assert not {"CUDA_INJECTION64_PATH", "LD_PRELOAD"} & set(message["seen"])
        assert bench.daemon.pool.nr_warm == 1
        writer.close()

    serve(body)


def test_grants_and_releases(serve):
    async def body(bench):
        reader, writer, _ = await bench.client()
        await tell(writer, f"ask 1 {3 * MIB} 0")
        assert await reader.readline() == f"1 0 {4 * MIB} {4 * MIB}\n".encode()
        await tell(writer, f"ask 1 {2 * MIB} 0")
        assert (await reader.readline()).split()[1] == b"-12"
        await tell(writer, f"send 2 {4 * MIB} {2 * MIB}")
        await bench.until(lambda: bench.used == 2)
        await tell(writer, f"send 5 0 {MIB}")
        await bench.until(lambda: bench.daemon.channels(bench.uuid)[0]["devices"][0]["used_bytes"] == MIB)
        writer.close()

    serve(body)


def test_released_memory_is_zero(serve):
    async def body(bench):
        reader, writer, _ = await bench.client()
        await tell(writer, f"ask 1 {2 * MIB} 0")
        await reader.readline()
        region = bench.daemon.regions.get(bench.uuid)
        os.pwrite(region.fd, b"secret", 4 * MIB)
        writer.close()
        await bench.until(lambda: bench.used == 0)
        assert os.pread(region.fd, 6, 4 * MIB) == bytes(6)

    serve(body)


@pytest.mark.parametrize(
    "lie",
    [
        f"send 2 {2 * MIB} {2 * MIB}",  # its own channel block
        f"send 2 0 {2 * MIB}",
        f"send 2 {4 * MIB} {2 * MIB}",  # not granted
        f"send 2 {1 << 63} {2 * MIB}",
        "send 5 7 1",
        "send 77 0 0",
        "send 6 3 0",  # physical memory to share, without its descriptor
        "pass 6 1",  # a handle to share, with one
        "send 6 9 0",
        "send 8 0 0",  # lets go of what it never had
        "pass 1 0",
        "send 10 0 0",  # a piece of no pages
        f"send 11 {4 * MIB} 0",
        f"send 12 {4 * MIB} 0",
        "short",
        "crash",
        "exit 9",
        "send 3 99 0",
    ],
)
def test_a_worker_that_lies_or_dies_ends_alone(serve, lie):
    async def body(bench):
        _, other, _ = await bench.client()
        reader, writer, _ = await bench.client()
        await tell(writer, lie)
        rest = await reader.read()
        assert rest in (b"", b"done\n")
        writer.close()
        await bench.until(lambda: len(bench.daemon.channels_part) == 1)
        other.close()

    serve(body)


def test_a_worker_that_hangs_is_killed_when_its_client_dies(serve):
    async def body(bench):
        reader, writer, _ = await bench.client()
        await tell(writer, "hang")
        await reader.readline()
        writer.close()
        await bench.until(lambda: not len(bench.daemon.channels_part), 2)

    serve(body)


def test_closing_a_domain_ends_its_channels(serve):
    async def body(bench):
        reader, writer, _ = await bench.client()
        hung, hung_writer, _ = await bench.client()
        await tell(hung_writer, "hang")
        await hung.readline()
        assert bench.daemon.close_channels(bench.uuid, "test") == 2
        assert await reader.read() == b"" and await hung.read() == b""
        writer.close()
        hung_writer.close()

    serve(body)


def test_removing_a_region_in_use(serve):
    async def body(bench):
        reader, writer, _ = await bench.client()
        answer = await bench.daemon._region_remove({"uuid": bench.uuid})
        assert answer["channels_closed"] == 1 and await reader.read() == b""
        writer.close()
        await bench.daemon._region_create({"uuid": bench.uuid, "size_mib": 8})

    serve(body)


def test_reset_connections_and_many_clients(serve):
    async def body(bench):
        for _ in range(6):
            _, writer, _ = await bench.client()
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()
            await bench.until(lambda: not len(bench.daemon.channels_part))

    serve(body)


def test_full_region_refuses_before_anything_is_lost(serve):
    async def body(bench):
        open_ones = [await bench.client() for _ in range(3)]
        with pytest.raises(AssertionError, match="in one piece left"):
            await bench.client()
        await bench.until(lambda: len(bench.allocations()) == 3)
        for _, writer, _ in open_ones:
            writer.close()

    serve(body)


class Hooked:
    """Stands where the libvirt part is."""

    commands = {}

    def __init__(self):
        self.heard, self.looked = [], []

    def hook(self, *words):
        self.heard.append(words)

    def look_again(self, who):
        self.looked.append(who)

    def addresses_changed(self):
        pass

    links_changed = addresses_changed

    def neighbour(self, mac):
        pass

    async def stop(self):
        pass


def test_hook_datagrams(serve):
    async def body(bench):
        bench.daemon.domains = hooked = Hooked()
        path = os.path.join(os.environ["ORION_RUN"], "hook.sock")
        assert os.stat(path).st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            for raw in [b"started u-1 a name", b"rubbish", b"\xff" * 900, b"", b"release u-2 n"]:
                sock.sendto(raw, path)
        await bench.until(lambda: len(hooked.heard) == 2)
        assert hooked.heard == [("started", "u-1", "a name"), ("release", "u-2", "n")]

    serve(body)


def test_listening_on_a_gateway(serve):
    """As long as a domain needs it; connections that it has go on, and the controller knows of each change."""

    async def body(bench):
        daemon = bench.daemon
        port = daemon.config.listen_port
        daemon.domains = hooked = Hooked()
        assert daemon.listen_for("vm1", ["127.0.0.2", "127.0.0.1"]) == {}
        assert daemon.listen_for("vm2", ["127.0.0.2"]) == {}
        assert f"127.0.0.2:{port}" in daemon.server_addrs()
        assert daemon.controller_addr(f"127.0.0.2:{port}").startswith("127.0.0.2:")
        await bench.until(lambda: "127.0.0.2" in bench.controller.json("/devices")["servers"][0]["addresses"])
        reader, writer = await asyncio.open_connection("127.0.0.2", port)
        daemon.listen_for("vm1", [])
        assert f"127.0.0.2:{port}" in daemon.server_addrs()
        daemon.listen_for("vm2", ["127.0.0.1"])
        assert f"127.0.0.2:{port}" not in daemon.server_addrs()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.2", port)
        writer.write(b"ORION/1 INFO\n\n")
        assert (await reader.readline()) == b"ORION/1 INFO\n"
        writer.close()
        await bench.until(lambda: "127.0.0.2" not in bench.controller.json("/devices")["servers"][0]["addresses"])
        assert hooked.looked == []  # who asked needs no telling

    serve(body)


def test_addresses_that_cannot_be_had_now(serve, monkeypatch):
    """Not there, or its port taken: said with the remedy, tried again, and the domain is looked at again."""
    monkeypatch.setattr(listening, "RETRY_SECONDS", 0.05)

    async def body(bench):
        daemon = bench.daemon
        daemon.domains = hooked = Hooked()
        with socket.socket() as taken:
            taken.bind(("127.0.0.3", daemon.config.listen_port))
            taken.listen()
            troubles = daemon.listen_for("vm1", ["192.0.2.1", "127.0.0.3"])
            assert "Is another oriond running?" in str(troubles["127.0.0.3"])
            assert "does not have the address (now)" in str(troubles["192.0.2.1"])
            assert len(daemon.listening_problems("vm1")) == 2 and daemon.listening_problems("vm2") == []
        await bench.until(lambda: hooked.looked)
        assert hooked.looked == ["vm1"] and len(daemon.listening_problems("vm1")) == 1
        assert f"127.0.0.3:{daemon.config.listen_port}" in daemon.server_addrs()
        daemon.listen_for("vm1", [])

    serve(body)
