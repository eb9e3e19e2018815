# SPDX-License-Identifier: Apache-2.0
"""server.conf and client.conf: reading, checking, defaults."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from orion_virt import units
from orion_virt import libvirt_uri
from orion_virt.errors import ConfigError

DEFAULT_PORT = 9960
DEFAULT_CONTROLLER_PORT = 9123
DEFAULT_METRICS_PORT = 9464
_BYTES_FROM = 1048576  # an shm_buffer_size above this is bytes: old files have it so


@dataclass(frozen=True)
class Entry:
    """One `key = value` with its place."""

    file: str
    line: int
    section: str
    key: str
    value: str

    def bad(self, accepted: str) -> ConfigError:
        return ConfigError(
            f"{self.file}:{self.line}: [{self.section}] {self.key} = {self.value!r} is not valid",
            hint=f"Accepted: {accepted}",
        )


@dataclass(frozen=True)
class LogConfig:
    """[server-log] and [client-log]."""

    log_with_time: bool = True
    log_to_screen: bool = False
    log_to_file: bool = True
    log_level: str = "INFO"
    file_log_level: str = "INFO"


@dataclass(frozen=True)
class ServerConfig:
    """What server.conf says; every field has its default."""

    listen_port: int = DEFAULT_PORT
    bind_addr: tuple[str, ...] = ()  # empty: auto
    pool_addr: str = ""  # empty: bind_addr's first, or our address on the way to the controller
    enable_shm: bool = True
    enable_rdma: bool = False
    enable_kvm: bool = True
    vgpu_count: int = 4
    driver: str = "auto"
    worker_user: str = "auto"  # a user of its own for each domain
    compute_limits: str = "off"
    longest_kernel: int = 0  # seconds, 0: as long as it likes
    confine: bool | None = None  # None: where the driver is NVIDIA's
    keep_workers: int = 60  # seconds that workers outlive their oriond
    metrics_addr: str = ""  # empty: not served
    metrics_tls_cert: str = ""
    metrics_tls_key: str = ""
    shm_path_base: str = "/dev/shm"
    shm_group_name: str = "auto"  # found from qemu.conf and the passwd database
    shm_user_name: str = "libvirt-qemu"
    shm_buffer_bytes: int | None = None
    shm_budget_bytes: int | None = None
    controller_addr: str = f"127.0.0.1:{DEFAULT_CONTROLLER_PORT}"
    controller_tls_ca: str = ""  # empty: plain HTTP
    libvirt_attach: str = "all"
    libvirt_exclude: tuple[str, ...] = ()
    libvirt_uri: str = "qemu:///system"
    log: LogConfig = LogConfig()
    file: str = ""
    warnings: tuple[str, ...] = ()

    def region_bytes(self, marked: bool) -> int:
        """Size of a domain's region: a power of two, since QEMU takes no other."""
        default = (1024 if marked else 128) * units.MIB
        return units.power_of_two_at_least(self.shm_buffer_bytes or default)


@dataclass(frozen=True)
class ClientConfig:
    """What client.conf says."""

    controller_addr: str = ""
    token: str = field(default="", repr=False)
    log: LogConfig = LogConfig()
    warnings: tuple[str, ...] = ()


def parse_bool(entry: Entry) -> bool:
    word = entry.value.lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise entry.bad("true or false (also yes/no, on/off, 1/0), quoted or bare")


def _bool_or_auto(entry: Entry) -> bool | None:
    if entry.value.lower() == "auto":
        return None
    try:
        return parse_bool(entry)
    except ConfigError:
        raise entry.bad("auto, true or false (also yes/no, on/off, 1/0), quoted or bare") from None


def _integer(low: int, high: int) -> Callable[[Entry], int]:
    def parse(entry: Entry) -> int:
        if not entry.value.isascii() or not entry.value.isdigit() or not low <= int(entry.value) <= high:
            raise entry.bad(f"a whole number from {low} to {high}")
        return int(entry.value)

    return parse


def _choice(*words: str) -> Callable[[Entry], str]:
    def parse(entry: Entry) -> str:
        for word in words:
            if entry.value.lower() == word.lower():
                return word
        raise entry.bad(", ".join(words))

    return parse


def _names(entry: Entry) -> tuple[str, ...]:
    return tuple(name.strip() for name in entry.value.split(",") if name.strip())


def _word(entry: Entry) -> str:
    if not entry.value:
        raise entry.bad("a non-empty word")
    return entry.value


def _uri(entry: Entry) -> str:
    why = libvirt_uri.refusal(entry.value)
    if why:
        raise entry.bad(f"{libvirt_uri.ACCEPTED}; this is {why}")
    return entry.value


def _addresses(entry: Entry) -> tuple[str, ...]:
    if entry.value.lower() == "auto":
        return ()
    try:
        found = tuple(str(ipaddress.ip_address(name)) for name in _names(entry))
    except ValueError:
        found = ()
    if not found:
        raise entry.bad("auto, or IP addresses separated by commas")
    if any((ip := ipaddress.ip_address(name)).is_multicast or ip.version == 6 and ip.is_link_local for name in found):
        raise entry.bad("addresses that a guest can dial: no multicast, no link-local IPv6 (give the network a ULA, fd00::/8)")
    return found


def _address(entry: Entry) -> str:
    try:
        return str(ipaddress.ip_address(entry.value))
    except ValueError:
        raise entry.bad("an IP address") from None


def split_addr(text: str, default_port: int) -> tuple[str, int] | None:
    """"host:port", "host" or "[v6]:port" as a pair; None when it is none of them."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or text.count(":") > 1 and not text.startswith("["):
        host, port = text, str(default_port)
    host = host.strip("[]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        return None
    return host, int(port)


def join_addr(host: str, port: int) -> str:
    """"ip:port", or "[ip]:port" for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _controller(entry: Entry) -> str:
    pair = split_addr(entry.value, DEFAULT_CONTROLLER_PORT)
    if pair is None:
        raise entry.bad(f"address:port, e.g. 127.0.0.1:{DEFAULT_CONTROLLER_PORT}")
    return join_addr(*pair)


def _directory(entry: Entry) -> str:
    if not entry.value.startswith("/"):
        raise entry.bad("an absolute path, e.g. /dev/shm/")
    return entry.value.rstrip("/") or "/"


def _path(entry: Entry) -> str:
    if not entry.value.startswith("/"):
        raise entry.bad("the absolute path of a file")
    return entry.value


def _metrics(entry: Entry) -> str:
    if entry.value.lower() == "off":
        return ""
    host, port = split_addr(entry.value, DEFAULT_METRICS_PORT) or ("", 0)
    try:
        return join_addr(str(ipaddress.ip_address(host)), port)
    except ValueError:
        raise entry.bad(f"off, or IP address:port, e.g. 127.0.0.1:{DEFAULT_METRICS_PORT}") from None


def _buffer(entry: Entry) -> int:
    value = _integer(1, 1 << 50)(entry)
    size = value if value > _BYTES_FROM else value * units.MIB
    if size < 2 * units.MIB:
        raise entry.bad("at least 2 (MiB)")
    return size


def _budget(entry: Entry) -> int:
    return _integer(2, 1 << 40)(entry) * units.MIB


def _kernel_seconds(entry: Entry) -> int:
    if entry.value.lower() == "off":
        return 0
    if not entry.value.isascii() or not entry.value.isdigit() or not 1 <= int(entry.value) <= 86400:
        raise entry.bad("off, or seconds from 1 to 86400")
    return int(entry.value)


_LEVELS = _choice("DEBUG", "INFO", "WARNING", "ERROR")
_Parser = Callable[[Entry], Any]
_LOG_KEYS: dict[str, tuple[str, _Parser]] = {
    "log_with_time": ("log_with_time", parse_bool),
    "log_to_screen": ("log_to_screen", parse_bool),
    "log_to_file": ("log_to_file", parse_bool),
    "log_level": ("log_level", _LEVELS),
    "file_log_level": ("file_log_level", _LEVELS),
}
_CLIENT_LEVELS = _choice("DEBUG", "INFO", "WARNING", "ERROR", "NONE")
_CLIENT_LOG_KEYS = _LOG_KEYS | {key: (key, _CLIENT_LEVELS) for key in ("log_level", "file_log_level")}
_SERVER_KEYS: dict[tuple[str, str], tuple[str, _Parser]] = {
    ("server", "listen_port"): ("listen_port", _integer(1, 65535)),
    ("server", "bind_addr"): ("bind_addr", _addresses),
    ("server", "pool_addr"): ("pool_addr", _address),
    ("server", "enable_shm"): ("enable_shm", parse_bool),
    ("server", "enable_rdma"): ("enable_rdma", parse_bool),
    ("server", "enable_kvm"): ("enable_kvm", parse_bool),
    ("server", "vgpu_count"): ("vgpu_count", _integer(1, 100)),
    ("server", "driver"): ("driver", _choice("auto", "nvidia", "simulated")),
    ("server", "worker_user"): ("worker_user", _word),
    ("server", "confine"): ("confine", _bool_or_auto),
    ("server", "keep_workers"): ("keep_workers", _integer(0, 3600)),
    ("server", "longest_kernel"): ("longest_kernel", _kernel_seconds),
    ("server", "compute_limits"): ("compute_limits", _choice("off", "on", "strict")),
    ("server", "metrics"): ("metrics_addr", _metrics),
    ("server", "metrics_tls_cert"): ("metrics_tls_cert", _path),
    ("server", "metrics_tls_key"): ("metrics_tls_key", _path),
    ("server-shm", "shm_path_base"): ("shm_path_base", _directory),
    ("server-shm", "shm_group_name"): ("shm_group_name", _word),
    ("server-shm", "shm_user_name"): ("shm_user_name", _word),
    ("server-shm", "shm_buffer_size"): ("shm_buffer_bytes", _buffer),
    ("server-shm", "shm_budget"): ("shm_budget_bytes", _budget),
    ("controller", "controller_addr"): ("controller_addr", _controller),
    ("controller", "tls_ca"): ("controller_tls_ca", _path),
    ("libvirt", "attach"): ("libvirt_attach", _choice("all", "marked", "off")),
    ("libvirt", "exclude"): ("libvirt_exclude", _names),
    ("libvirt", "uri"): ("libvirt_uri", _uri),
}
# Field of ServerConfig -> how people know it.
KEY_OF_FIELD = {name: f"[{section}] {key}" for (section, key), (name, _) in _SERVER_KEYS.items()} | {"log": "[server-log]"}
_CLIENT_KEYS: dict[tuple[str, str], tuple[str, _Parser]] = {
    ("controller", "controller_addr"): ("controller_addr", _controller),
    ("controller", "token"): ("token", _word),
}


@dataclass
class _Parsed:
    values: dict[str, Any] = field(default_factory=dict)
    log: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_entries(text: str, file: str) -> list[Entry]:
    """The `key = value` lines of an INI file; a key before any section or a line that is neither is an error."""
    entries, section = [], ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = _strip_comment(raw)
        if not line:
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip().lower()
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip() or not section:
            raise ConfigError(
                f"{file}:{number}: {line!r} is not understood", hint="Accepted: [section], key = value, ; comment"
            )
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1].strip()
        entries.append(Entry(file, number, section, key.strip().lower(), value))
    return entries


def _strip_comment(raw: str) -> str:
    line = raw.strip().lstrip("\ufeff")
    if line[:1] in (";", "#"):
        return ""
    for mark in (" ;", "\t;", " #", "\t#"):
        line = line.split(mark, 1)[0]
    return line.strip()


def _parse(text: str, file: str, keys: Mapping[tuple[str, str], tuple[str, _Parser]], log_section: str = "",
           log_keys: Mapping[str, tuple[str, _Parser]] = MappingProxyType({})) -> _Parsed:
    parsed = _Parsed()
    for entry in read_entries(text, file):
        if entry.section == log_section and entry.key in log_keys:
            name, parser = log_keys[entry.key]
            parsed.log[name] = parser(entry)
            continue
        known = keys.get((entry.section, entry.key))
        if known is None:
            parsed.warnings.append(f"{file}:{entry.line}: unknown key [{entry.section}] {entry.key} is ignored")
            continue
        parsed.values[known[0]] = known[1](entry)
        parsed.entries[known[0]] = entry
    return parsed


def _check_server(config: ServerConfig, entries: Mapping[str, Entry]) -> None:
    if bool(config.metrics_tls_cert) != bool(config.metrics_tls_key):
        found = entries.get("metrics_tls_cert") or entries["metrics_tls_key"]
        raise ConfigError(f"{found.file}:{found.line}: [server] metrics_tls_cert and metrics_tls_key belong together",
                          hint="Set both or neither")
    rdma = entries.get("enable_rdma")
    if not config.enable_rdma or rdma is None:
        return
    if config.enable_shm:
        raise ConfigError(
            f"{rdma.file}:{rdma.line}: enable_shm and enable_rdma cannot both be true",
            hint="Set enable_rdma = false to use shared memory",
        )
    raise ConfigError(
        f"{rdma.file}:{rdma.line}: enable_rdma = true is not available in this version",
        hint="Set enable_rdma = false; with enable_shm = false too, plain TCP is used",
    )


Config = TypeVar("Config", ServerConfig, ClientConfig)


def parse_server(text: str, file: str, environ: Mapping[str, str] | None = None) -> ServerConfig:
    """Checks the text of a server.conf. Raises ConfigError with file and line."""
    parsed = _parse(text, file, _SERVER_KEYS, "server-log", _LOG_KEYS)
    config = ServerConfig(
        **parsed.values, log=LogConfig(**parsed.log), file=file, warnings=tuple(parsed.warnings)
    )
    _check_server(config, parsed.entries)
    return _with_environment(config, os.environ if environ is None else environ)


def parse_client(text: str, file: str, environ: Mapping[str, str] | None = None) -> ClientConfig:
    """Checks the text of a client.conf. Raises ConfigError with file and line."""
    parsed = _parse(text, file, _CLIENT_KEYS, "client-log", _CLIENT_LOG_KEYS)
    config = ClientConfig(**parsed.values, log=LogConfig(**parsed.log), warnings=tuple(parsed.warnings))
    return _with_environment(config, os.environ if environ is None else environ)


def _with_environment(config: Config, environ: Mapping[str, str]) -> Config:
    addr = environ.get("ORION_CONTROLLER")
    if not addr:
        return config
    pair = split_addr(addr, DEFAULT_CONTROLLER_PORT)
    if pair is None:
        raise ConfigError(
            f"ORION_CONTROLLER={addr!r} is not valid",
            hint=f"Accepted: address:port, e.g. 127.0.0.1:{DEFAULT_CONTROLLER_PORT}",
        )
    return replace(config, controller_addr=join_addr(*pair))


def _read(path: Path, required: bool) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path} does not exist", hint="Create it or name another with --config") from None
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="Make it a text file that this user may read") from error


def load_server(path: Path, required: bool = False) -> ServerConfig:
    """Reads a server.conf; an absent file means defaults unless `required`."""
    return parse_server(_read(path, required), str(path))


def load_client(path: Path, required: bool = False) -> ClientConfig:
    """Reads a client.conf; an absent file means defaults unless `required`."""
    return parse_client(_read(path, required), str(path))
