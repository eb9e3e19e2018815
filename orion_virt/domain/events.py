# SPDX-License-Identifier: Apache-2.0
"""libvirt's own event loop, in a thread of its own: libvirt-python can have only one in a process."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import libvirt

_log = logging.getLogger("orion.libvirt")
_started = threading.Lock()
_running = False

Changed = Callable[[str], None]
"""Called in the event thread with the UUID of a domain whose state, definition, metadata or devices changed."""


# Memory and guest became an earlier state's in the same QEMU process.
_REVERTED = ((libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT),
             (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT),
             (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT))


def start_loop() -> None:
    """Registers and runs libvirt's default event loop; must precede the first connection."""
    global _running
    with _started:
        if _running:
            return
        _running = True
        libvirt.registerErrorHandler(_quiet, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run, name="libvirt-events", daemon=True).start()


def _quiet(context: Any, error: Any) -> None:
    """Keeps libvirt from printing errors that come to us as exceptions anyway."""


def _run() -> None:
    # A timer, so that the loop wakes up although nothing is registered yet.
    libvirt.virEventAddTimeout(1000, lambda *_: None, None)
    while True:
        if libvirt.virEventRunDefaultImpl() < 0:
            _log.error("libvirt's event loop failed once; it goes on")


def subscribe(connection: libvirt.virConnect, changed: Changed, networks: Callable[[], None], rebooted: Changed,
              lost: Callable[[], None]) -> Callable[[], None]:
    """Calls `changed` at every event of a domain that matters to us, `networks` when a network comes or goes, and
    `lost` once, when the connection is gone. All in the event thread.

    ``rebooted``: the guest was reset, from inside or outside, or became one of a snapshot: its processes are others.
    Returns what ends all that: a callback that stays keeps libvirt's side of even a closed connection, with a descriptor.
    """

    def on_event(_connection: Any, domain: libvirt.virDomain, *_details: Any) -> None:
        changed(domain.UUIDString())

    def on_lifecycle(_connection: Any, domain: libvirt.virDomain, event: int, detail: int, _opaque: Any) -> None:
        if (event, detail) in _REVERTED:
            rebooted(domain.UUIDString())
        changed(domain.UUIDString())

    def on_reboot(_connection: Any, domain: libvirt.virDomain, *_details: Any) -> None:
        rebooted(domain.UUIDString())

    domain_events = dict.fromkeys(
        (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
         libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE), on_event
    ) | {libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: on_lifecycle, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: on_reboot}
    with contextlib.ExitStack() as ends:  # those that there are go when a later one fails
        for event, callback in domain_events.items():
            ends.callback(_quietly, connection.domainEventDeregisterAny, connection.domainEventRegisterAny(None, event, callback, None))
        with contextlib.suppress(libvirt.libvirtError):  # a libvirt without network driver: the kernel still tells us
            number = connection.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, lambda *_: networks(), None)
            ends.callback(_quietly, connection.networkEventDeregisterAny, number)
        try:
            connection.registerCloseCallback(lambda *_: lost(), None)
            ends.callback(_quietly, connection.unregisterCloseCallback)
            connection.setKeepAlive(5, 3)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # a driver in this process has no connection to lose
                raise
        return ends.pop_all().close


def _quietly(end: Callable[..., Any], *args: Any) -> None:
    """The connection may be gone: what is on our side goes all the same."""
    with contextlib.suppress(libvirt.libvirtError):
        end(*args)
