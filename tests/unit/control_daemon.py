# SPDX-License-Identifier: Apache-2.0
"""A control socket without oriond: each command has its answers, and what was asked is kept."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any


class FakeDaemon:
    """`answers[command]` is an object, or a list of which each question takes the next (the last stays)."""

    def __init__(self, directory: Path) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(directory / "control.sock"))
        self._server.listen()
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            with peer, peer.makefile() as lines:
                request = json.loads(lines.readline())
                self.asked.append(request)
                peer.sendall(json.dumps(self._answer(request)).encode() + b"\n")

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self.answers.get(request["cmd"])
        if callable(found):
            found = found(request)
        elif isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if found is None:
            return {"ok": False, "error": f"command {request['cmd']!r} is unknown", "hint": "", "exit_code": 3}
        return {"ok": True} | found

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
