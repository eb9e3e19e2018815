# SPDX-License-Identifier: Apache-2.0
"""Fixtures for everybody: a whole host side (controller, oriond, a region) on the simulated GPU."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import host
import pytest
import skips

# What is quick comes first, so that a mistake shows early.
ORDER = ("style", "unit", "spec", "c", "docs", "simgpu", "loopback", "security", "fuzz", "packages", "soak", "vm")


def pytest_configure(config):
    if (gate := skips.gate()) is not None:
        config.pluginmanager.register(gate, "skip-gate")


def pytest_collection_modifyitems(items):
    def place(item):
        return next((at for at, folder in enumerate(ORDER) if f"tests/{folder}/" in item.nodeid), len(ORDER))

    items.sort(key=place)


@pytest.fixture
def oriond_env(tmp_path):
    """A running host side with a region of 128 MiB; fails at the end if anything leaked."""
    with host.running(tmp_path) as env:
        yield env


@pytest.fixture
def make_oriond(tmp_path):
    """`make_oriond(config="...", region_mib=64)` as a context manager, for tests that need their own settings."""

    def make(**options):
        return host.running(tmp_path, **options)

    return make


@pytest.fixture
def web():
    """`web(answer, status=200)`: an HTTP server that answers a GET of `path` with the text `answer(path)`; its host:port."""
    servers = []

    def serve(answer, status=200):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer(self.path).encode())

            def log_message(self, *_): ...

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return f"127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
