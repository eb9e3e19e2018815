# SPDX-License-Identifier: Apache-2.0
"""The secret by which servers prove themselves to the controller, and that of monitoring: one 0600 file each."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from orion_virt.errors import ConfigError

HEADER = "Orion-Credential"
_OWNER = b"orion allocation"


def load(path: Path) -> str:
    """Reads the secret, making the file if there is none. Raises ConfigError when it cannot be trusted."""
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="Run as the user it belongs to") from error
    try:
        return _make(path)
    except FileExistsError:
        return _read(path)  # the other of controller and oriond was quicker
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be made: {error.strerror}", hint="Run as root, or set ORION_STATE to a directory of yours"
        ) from error


def _read(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd) as file:
        info = os.fstat(fd)
        secret = file.read(256).strip()
    if info.st_mode & 0o077 or info.st_uid not in (0, os.geteuid()) or len(secret) < 32:
        raise ConfigError(f"{path} is not a private file with a secret", hint="Remove it; it is made anew")
    return secret


def _make(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = secrets.token_hex(32)
    # Linked into place whole, so that nobody reads half of it.
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(secret + "\n")
        os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return secret


def host_key(secret: str) -> str:
    """By which a host is known to itself, as long as it keeps its secret, and does not tell that."""
    return hashlib.sha256(f"host {secret}".encode()).hexdigest()[:32]


def matches(given: str | None, secret: str) -> bool:
    return hmac.compare_digest((given or "").encode("utf-8", "replace"), secret.encode())


def bearer(headers: Mapping[str, str]) -> str:
    """The token of a request; "" where it has none."""
    kind, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def owner_key(token: bytes) -> str:
    """By which a domain's allocations are known: only who reads the token in its region can make it, and it tells no token."""
    return hmac.new(token, _OWNER, hashlib.sha256).hexdigest()
