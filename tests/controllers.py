# SPDX-License-Identifier: Apache-2.0
"""A controller in this process, and one as a process of its own, with what asks them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from host import ROOT, free_port, wait_for

from orion_virt import credential
from orion_virt.controller.http import Controller
from orion_virt.controller.pool import Pool

MIB = 1 << 20
SECRET = "s" * 64
GPU = {"index": 0, "name": "Sim", "total_bytes": 8000 * MIB, "slots": 4}
ON = {"port": 9960, "boot": "b1", "addresses": ["127.0.0.1"], "gpus": [GPU, GPU | {"index": 1}]}


class Client:
    """`secret`: what it shows, "" for a guest."""

    def __init__(self, port, secret=SECRET, ip="127.0.0.1", source=None, token=""):
        self.port, self.secret, self.ip, self.source, self.token = port, secret, ip, source, token

    def __call__(self, path, body=None, secret=None, method=None):
        source = (self.source, 0) if self.source else None
        connection = http.client.HTTPConnection(self.ip, self.port, timeout=180, source_address=source)
        headers = {credential.HEADER: self.secret if secret is None else secret}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def json(self, path, body=None, method=None):
        """The object; fails on another status than 200."""
        status, text = self(f"/v1{path}", body, method=method)
        assert status == 200, (status, text)
        return json.loads(text)

    def on(self, name="10.0.0.1", **changes):
        return self(f"/heartbeat/{name}?res=nvidia_cuda&status=on", ON | changes)

    def guest(self, source=None):
        """The same controller, asked without the servers' secret."""
        return Client(self.port, "", self.ip, source)


@contextlib.contextmanager
def serving(make_store, token="", gateways=(), others=(), host="here", watch_token="", port=0):
    """The port of a controller that runs in a thread; `make_store` is called in it."""
    loop = asyncio.new_event_loop()
    started, stop, ports = threading.Event(), asyncio.Event(), []

    async def run():
        controller = Controller(Pool(make_store(), host), SECRET, token, watch_token)
        await controller.start()
        ports.append(await controller.doors.open("127.0.0.1", port))
        for ip in gateways:
            await controller.doors.open(ip, ports[0], gateway=True)
        for ip in others:
            await controller.doors.open(ip, ports[0])
        started.set()
        await stop.wait()
        await controller.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert started.wait(10), "the controller did not start"
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


class Process:
    """orion-controller with directories below `home`."""

    def __init__(self, home: Path, *args: str, port: int = 0, listen: str | None = None, **variables: str) -> None:
        """``listen``: "" leaves it to controller.conf."""
        self.port = port or free_port()
        self.env = {f"ORION_{n}": str(home / n.lower()) for n in ("ETC", "RUN", "LOG", "STATE")}
        self.env |= {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]} | variables
        listen = f"127.0.0.1:{self.port}" if listen is None else listen
        argv = [sys.executable, "-m", "orion_virt.cli.controller", "--listen", listen, *args]
        self.process = subprocess.Popen(argv, env=self.env, stderr=subprocess.PIPE, text=True)
        self.secret_file = home / "state" / "server.credential"

    def client(self) -> Client:
        assert wait_for(self.answers), f"it does not answer: {self.process.poll()}"
        return Client(self.port, self.secret_file.read_text().strip())

    def answers(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return Client(self.port, "")("/info")[0] == 200
        return False

    def kill(self) -> None:
        self.process.kill()
        self.ended()

    def ended(self) -> int:
        """Waits for its end; the exit status."""
        status = self.process.wait(20)
        assert self.process.stderr is not None
        self.log = self.process.stderr.read()
        self.process.stderr.close()
        return status
