# SPDX-License-Identifier: Apache-2.0
"""Where the controller listens: loopback and the domains' gateways are open, an address of the local network is guarded."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl

from aiohttp import web

from orion_virt.config import join_addr
from orion_virt.errors import Unavailable


def is_loopback(ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return ip == "localhost"


class Doors:
    """For the event loop."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._sites: dict[str, web.SockSite] = {}
        self._gateways: set[str] = set()

    async def open(self, ip: str, port: int, *, gateway: bool = False, tls: ssl.SSLContext | None = None) -> int:
        """Listens there; returns the port. ``gateway``: of this host's domains, so open to them. Raises Unavailable."""
        if gateway:
            self._gateways.add(ip)
        if ip in self._sites or gateway and (":" in ip and "::" or "0.0.0.0") in self._sites:
            return port
        try:
            sock = socket.create_server((ip, port), family=_family(ip), dualstack_ipv6=ip == "::")
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {join_addr(ip, port)}: {os.strerror(error.errno or 0)}",
                hint="Is another orion-controller running? Choose another address with --listen",
            ) from error
        self._sites[ip] = web.SockSite(self._runner, sock, ssl_context=tls)
        await self._sites[ip].start()
        return int(sock.getsockname()[1])

    async def shut(self, ip: str) -> None:
        """Takes no more connections there; those that it has are served to their end."""
        self._gateways.discard(ip)
        site = self._sites.pop(ip, None)
        if site is not None:
            await site.stop()

    async def stop(self) -> None:
        for ip in list(self._sites):
            await self.shut(ip)

    def is_guarded(self, local_ip: str) -> bool:
        """Whether who dials this address of ours must show a token."""
        return not is_loopback(local_ip) and local_ip not in self._gateways


def _family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET
