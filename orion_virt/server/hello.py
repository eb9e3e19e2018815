# SPDX-License-Identifier: Apache-2.0
"""What a client says of itself, checked; and which of its variables a worker may see."""

from __future__ import annotations

import hashlib
import hmac
import uuid as uuids
from dataclasses import dataclass

from orion_virt import layout
from orion_virt.errors import ProtocolError
from orion_virt.server.blocks import Block

# The driver reads these at cuInit; none of them names a path or loads code.
ENV_ALLOWED = frozenset(
    {
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "CUDA_DEVICE_MAX_COPY_CONNECTIONS",
        "CUDA_MODULE_LOADING",
        "CUDA_MODULE_DATA_LOADING",
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_FORCE_PTX_JIT",
        "CUDA_DISABLE_PTX_JIT",
        "CUDA_FORCE_JIT",
        "CUDA_DISABLE_JIT",
        "CUDA_AUTO_BOOST",
        "CUDA_SCALE_LAUNCH_QUEUES",
        "CUDA_GRAPHS_USE_NODE_PRIORITY",
    }
)
_ENV_VALUE_MAX = 64


@dataclass(frozen=True)
class Hello:
    """A checked HELLO. `domain` is a canonical UUID, or "" over TCP from a client without a region."""

    shared: bool
    domain: str
    generation: int
    base: int
    pid: int
    comm: str
    build: str
    allocation: str
    env: tuple[tuple[str, str], ...]
    raw: bytes
    machine: str = ""  # over TCP: which machine it is on; "" where that is not known
    rings: bool = False  # it has mapped the device's doorbell
    vgpus: tuple[int, ...] = ()  # which of its machine's vGPUs these are
    ratio: int = 0  # percent of a card's time for each vGPU; 0: not said
    polled: bool = False  # it came through the mailbox: neither side can wake the other


@dataclass(frozen=True)
class Asker:
    """A checked USAGE: who asks what NVML tells, without a vGPU of its own."""

    shared: bool
    domain: str
    generation: int
    machine: str
    everything: bool  # also what never changes
    raw: bytes


def parse_usage(block: Block) -> Asker:
    """Raises ProtocolError."""
    shared = _shared(block)
    return Asker(
        shared,
        _uuid(block.get("domain")) if shared else "",
        block.number("generation") if shared else 0,
        "" if shared else _machine(block),
        block.get("want") == "all",
        block.raw,
    )


def parse(block: Block) -> Hello:
    """Raises ProtocolError."""
    shared = _shared(block)
    base = block.number("base", 0) if shared else 0
    if shared and base not in layout.BASES:
        raise ProtocolError(f"the region is mapped at 0x{base:x}, which is none of the agreed addresses")
    _bitmap(block.get("ops"))
    return Hello(
        shared,
        _uuid(block.get("domain")) if shared else _uuid_or_none(block.fields.get("domain", "")),
        block.number("generation") if shared else 0,
        base,
        block.number("pid"),
        _tame(block.fields.get("comm", ""), 32) or "?",
        _tame(block.fields.get("build", "?"), 96),
        _uuid(block.get("allocation")),
        _env(block),
        block.raw,
        "" if shared else _machine(block),
        shared and block.fields.get("doorbell") == "yes",
        _vgpus(block.fields.get("vgpus", "")),
        _ratio(block),
    )


def proof(token: bytes, nonce: bytes, hello: Hello | Asker) -> str:
    """What AUTH must carry."""
    return hmac.new(token, nonce + hello.raw, hashlib.sha256).hexdigest()


def is_proven(given: str, token: bytes, nonce: bytes, hello: Hello | Asker) -> bool:
    return hmac.compare_digest(given.lower().encode(), proof(token, nonce, hello).encode())


def _shared(block: Block) -> bool:
    transport = block.get("transport")
    if transport not in ("shm", "tcp"):
        raise ProtocolError("transport is neither shm nor tcp")
    return transport == "shm"


def _machine(block: Block) -> str:
    """128 bits in hex, made from a secret of the machine; older clients send none."""
    text = block.fields.get("machine", "-").lower()
    if text == "-":
        return ""
    if len(text) != 32 or set(text) - set("0123456789abcdef"):
        raise ProtocolError("machine is not 32 hex digits")
    return text


def _vgpus(text: str) -> tuple[int, ...]:
    """As many as there are; those that are not said are numbered from 0."""
    words = text.split(",") if text else []
    if len(words) > layout.MAX_DEVICES or any(not w.isdigit() or int(w) >= layout.MAX_DEVICES for w in words):
        raise ProtocolError("vgpus is not a list of numbers")
    return tuple(int(w) for w in words)


def _ratio(block: Block) -> int:
    ratio = block.number("ratio", 0) if "ratio" in block.fields else 0
    if ratio > 100:
        raise ProtocolError("ratio is no percentage")
    return ratio


def _uuid(text: str) -> str:
    try:
        return str(uuids.UUID(text))
    except ValueError:
        raise ProtocolError("a UUID is malformed") from None


def _uuid_or_none(text: str) -> str:
    return _uuid(text) if text not in ("", "-") else ""


def _bitmap(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ProtocolError("ops is not hex") from None


def _tame(text: str, longest: int) -> str:
    """Fit for a log line and a file name's neighbourhood."""
    return "".join(c if c.isalnum() or c in "._+-@: " else "_" for c in text[:longest])


def _env(block: Block) -> tuple[tuple[str, str], ...]:
    found = []
    for key, value in sorted(block.fields.items()):
        name = key[4:] if key.startswith("env.") else ""
        if name in ENV_ALLOWED and len(value) <= _ENV_VALUE_MAX:
            found.append((name, value))
    return tuple(found)
