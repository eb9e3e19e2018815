# SPDX-License-Identifier: Apache-2.0
"""SIGHUP: which differences between two configurations take effect in a running oriond."""

from __future__ import annotations

from dataclasses import fields, replace

from orion_virt.config import KEY_OF_FIELD, ServerConfig

AT_ONCE = frozenset({"log", "worker_user", "keep_workers", "longest_kernel", "shm_buffer_bytes", "shm_budget_bytes", "libvirt_attach",
                     "libvirt_exclude", "metrics_addr", "metrics_tls_cert", "metrics_tls_key"})
_NO_KEY = frozenset({"file", "warnings"})


def merge(running: ServerConfig, wanted: ServerConfig) -> tuple[ServerConfig, list[str], list[str]]:
    """What runs from now on, the keys that changed at once, and those that need a restart ("[section] key")."""
    at_once: list[str] = []
    later: list[str] = []
    changes = {}
    for name in (field.name for field in fields(ServerConfig)):
        value = getattr(wanted, name)
        if name in _NO_KEY or value == getattr(running, name):
            continue
        is_at_once = name in AT_ONCE and not _switches_libvirt(name, running, wanted)
        (at_once if is_at_once else later).append(KEY_OF_FIELD[name])
        if is_at_once:
            changes[name] = value
    return replace(running, **changes), at_once, later


def _switches_libvirt(name: str, running: ServerConfig, wanted: ServerConfig) -> bool:
    """From or to attach = off: the part that follows libvirt is there from the start, or not at all."""
    return name == "libvirt_attach" and "off" in (running.libvirt_attach, wanted.libvirt_attach)
