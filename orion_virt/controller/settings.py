# SPDX-License-Identifier: Apache-2.0
"""controller.conf: where an orion-controller listens, what it wants from strangers, where it keeps its state."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from orion_virt import config
from orion_virt.config import Entry
from orion_virt.controller.doors import is_loopback
from orion_virt.errors import ConfigError
from orion_virt.tls import serving

DEFAULT_LISTEN = (f"127.0.0.1:{config.DEFAULT_CONTROLLER_PORT}",)
_WILDCARDS = ("0.0.0.0", "::")
_TOKEN_LEAST = 16


@dataclass(frozen=True)
class Settings:
    """Every field has its default. ``listen``: "ip:port" each."""

    listen: tuple[str, ...] = DEFAULT_LISTEN
    gateways: bool = True
    token_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    store: str = "sqlite"
    etcd: tuple[str, ...] = ("http://127.0.0.1:2379",)
    etcd_ca: str = ""
    etcd_cert: str = ""
    etcd_key: str = ""
    etcd_prefix: str = "/orion/"
    warnings: tuple[str, ...] = ()


def addresses(text: str) -> tuple[str, ...] | None:
    """"address:port" pairs of a list with commas; None where one is none."""
    pairs = [config.split_addr(part.strip(), config.DEFAULT_CONTROLLER_PORT) for part in text.split(",") if part.strip()]
    found = tuple(config.join_addr(*pair) for pair in pairs if pair is not None)
    return found if found and len(found) == len(pairs) else None


def _listen(entry: Entry) -> tuple[str, ...]:
    found = addresses(entry.value)
    if found is None:
        raise entry.bad("address:port, several separated by commas, e.g. 127.0.0.1:9123")
    return found


def _endpoints(entry: Entry) -> tuple[str, ...]:
    found = tuple(part.strip().rstrip("/") for part in entry.value.split(",") if part.strip())
    if not found or not all(part.startswith(("http://", "https://")) for part in found):
        raise entry.bad("URLs separated by commas, e.g. http://10.0.0.1:2379,http://10.0.0.2:2379")
    return found


def _prefix(entry: Entry) -> str:
    if not entry.value.startswith("/") or not entry.value.endswith("/"):
        raise entry.bad("a name between slashes, e.g. /orion/")
    return entry.value


KEYS: dict[tuple[str, str], tuple[str, config._Parser]] = {
    ("controller", "listen"): ("listen", _listen),
    ("controller", "gateways"): ("gateways", config.parse_bool),
    ("controller", "token_file"): ("token_file", config._path),
    ("controller", "tls_cert"): ("tls_cert", config._path),
    ("controller", "tls_key"): ("tls_key", config._path),
    ("store", "kind"): ("store", config._choice("sqlite", "etcd")),
    ("store", "etcd"): ("etcd", _endpoints),
    ("store", "etcd_ca"): ("etcd_ca", config._path),
    ("store", "etcd_cert"): ("etcd_cert", config._path),
    ("store", "etcd_key"): ("etcd_key", config._path),
    ("store", "etcd_prefix"): ("etcd_prefix", _prefix),
}


def load(path: Path, listen: str = "", required: bool = False) -> Settings:
    """``listen`` (of the command line) wins over the file's. Raises ConfigError with file and line."""
    parsed = config._parse(config._read(path, required), str(path), KEYS)
    settings = Settings(**parsed.values, warnings=tuple(parsed.warnings))
    if listen:
        found = addresses(listen)
        if found is None:
            raise ConfigError(f"--listen {listen!r} is not valid", hint="Accepted: address:port, e.g. 127.0.0.1:9123")
        settings = replace(settings, listen=found)
    check(settings)
    return settings


def guarded(settings: Settings) -> list[str]:
    """What of ``listen`` others than this host may reach."""
    return [addr for addr in settings.listen if not is_loopback(host_of(addr))]


def host_of(addr: str) -> str:
    pair = config.split_addr(addr, config.DEFAULT_CONTROLLER_PORT)
    assert pair is not None, "checked"
    return pair[0]


def check(settings: Settings) -> None:
    """Raises ConfigError where keys contradict each other, or leave a door open."""
    if guarded(settings) and not settings.token_file:
        raise ConfigError(
            f"listening on {guarded(settings)[0]} lets the local network ask for vGPUs, and there is no token",
            hint="Set [controller] token_file in controller.conf (a file with a secret, mode 0600), or listen on 127.0.0.1: the "
            "gateways of this host's domains are served in any case",
        )
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ConfigError("[controller] tls_cert and tls_key belong together", hint="Set both or neither")
    if settings.tls_cert and any(host_of(addr) in _WILDCARDS for addr in settings.listen):
        raise ConfigError(
            "TLS with a wildcard address would reach the domains' gateways too, whose guests speak plain HTTP",
            hint="List the addresses of the local network in [controller] listen",
        )


def token(settings: Settings) -> str:
    """The secret that callers from the local network send; "" where there is none. Raises ConfigError."""
    if not settings.token_file:
        return ""
    path = Path(settings.token_file)
    try:
        secret, mode = path.read_text().strip(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token_file {path} cannot be read: {error}", hint="Make it: openssl rand -hex 32 >FILE") from error
    if mode & 0o077:
        raise ConfigError(f"token_file {path} can be read by others", hint=f"chmod 600 {path}")
    if len(secret) < _TOKEN_LEAST or any(c.isspace() or not c.isascii() for c in secret):
        raise ConfigError(f"token_file {path} holds no token", hint=f"At least {_TOKEN_LEAST} characters without spaces")
    return secret


def tls(settings: Settings) -> ssl.SSLContext | None:
    """Of what is guarded. Raises ConfigError."""
    return serving("", settings.tls_cert, settings.tls_key)


def etcd_tls(settings: Settings) -> ssl.SSLContext | None:
    """For members that are reached by https. Raises ConfigError."""
    if not (settings.etcd_ca or settings.etcd_cert):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.etcd_ca or None)
        if settings.etcd_cert:
            context.load_cert_chain(settings.etcd_cert, settings.etcd_key or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"etcd_ca {settings.etcd_ca!r} with etcd_cert {settings.etcd_cert!r} and etcd_key "
                          f"{settings.etcd_key!r}: {error}", hint="All are PEM files") from error
    return context
