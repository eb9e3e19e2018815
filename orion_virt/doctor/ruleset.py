# SPDX-License-Identifier: Apache-2.0
"""Where a packet filter stops a guest's first packet to us, by the kernel's rules: `nft -j` or `iptables-save`.

A rule that matches on what is not known of such a packet (its source, a mark, a rate) is passed over.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

ACCEPT, DROP, RETURN, GO_ON = "accept", "drop", "return", "go on"
_DEPTH = 16


@dataclass(frozen=True)
class Way:
    """A TCP connection of a guest: in by this device of the host, to this address and port of it."""

    device: str
    address: str
    port: int

    @property
    def is_v6(self) -> bool:
        return ":" in self.address


@dataclass(frozen=True)
class Place:
    """The chain at whose end or in which the packet is dropped."""

    family: str
    table: str
    chain: str


@dataclass
class _Chain:
    rules: list[Any] = field(default_factory=list)
    hook: str = ""
    kind: str = ""
    priority: int = 0
    policy: str = ACCEPT


class Unknown(Exception):
    """Whether it matches cannot be told."""


# ---- nft -j list ruleset ----


class Nft:
    """Tables of `nft -j list ruleset`."""

    def __init__(self, found: dict[str, Any], without: Collection[tuple[str, str]] = ()) -> None:
        """`without`: (family, table) that somebody else follows."""
        self._chains: dict[tuple[str, str, str], _Chain] = {}
        self._sets: dict[tuple[str, str, str], list[Any]] = {}
        for item in found.get("nftables", []):
            for kind, body in item.items():
                if (body.get("family"), body.get("table")) in without:
                    continue
                if kind == "chain":
                    self._chains[_key(body, "name")] = _Chain(
                        [],
                        body.get("hook", ""),
                        body.get("type", ""),
                        int(body.get("prio", 0)),
                        body.get("policy", ACCEPT),
                    )
                elif kind in ("set", "map"):
                    self._sets[_key(body, "name")] = body.get("elem", [])
                elif kind == "rule":
                    self._chains[_key(body, "chain")].rules.append(body.get("expr", []))

    def stops(self, way: Way) -> Place | None:
        """The first base chain in whose course the packet is dropped."""
        families = ("inet", "ip6" if way.is_v6 else "ip")
        base = [
            (key, chain)
            for key, chain in self._chains.items()
            if key[0] in families and chain.hook == "input" and chain.kind == "filter"
        ]
        for key, chain in sorted(base, key=lambda item: item[1].priority):
            verdict = self._run(key, way, 0)
            if verdict == DROP or (verdict in (GO_ON, RETURN) and chain.policy == DROP):
                return Place(*key)
        return None

    def _run(self, key: tuple[str, str, str], way: Way, depth: int) -> str:
        chain = self._chains.get(key)
        if chain is None or depth > _DEPTH:
            return GO_ON
        for rule in chain.rules:
            verdict = self._rule(key, rule, way, depth)
            if verdict != GO_ON:
                return verdict
        return GO_ON

    def _rule(self, key: tuple[str, str, str], rule: list[Any], way: Way, depth: int) -> str:
        try:
            for statement in rule:
                name: str
                body: Any
                name, body = next(iter(statement.items())) if isinstance(statement, dict) else (statement, None)
                if name == "match" and not self._matches(key, body, way):
                    return GO_ON
                if name == "xt":
                    name = _of_iptables(body)
                if name == "vmap":
                    statement = self._mapped(key, body, way)
                    name, body = next(iter(statement.items())) if statement else ("", None)
                verdict = self._verdict(key, name, body, way, depth)
                if verdict:
                    return verdict
        except Unknown:
            pass
        return GO_ON

    def _verdict(self, key: tuple[str, str, str], name: str, body: Any, way: Way, depth: int) -> str:
        """ "" for a statement that is none, or a chain that came back."""
        if name in (ACCEPT, RETURN):
            return name
        if name in (DROP, "reject"):
            return DROP
        if name not in ("jump", "goto"):
            return ""
        verdict = self._run((key[0], key[1], body["target"]), way, depth + 1)
        if verdict in (ACCEPT, DROP):
            return verdict
        return RETURN if name == "goto" else ""

    def _mapped(self, key: tuple[str, str, str], body: dict[str, Any], way: Way) -> dict[str, Any] | None:
        value = _value(body["key"], way)
        data = body["data"]
        entries = self._elements(key, data) if isinstance(data, str) else data.get("set", [])
        return next((verdict for left, verdict in entries if _is_in(value, [left], self, key)), None)

    def _elements(self, key: tuple[str, str, str], name: str) -> list[Any]:
        return self._sets.get((key[0], key[1], name.lstrip("@")), [])

    def _matches(self, key: tuple[str, str, str], body: dict[str, Any], way: Way) -> bool:
        value, right, op = _value(body["left"], way), body["right"], body.get("op", "==")
        wanted = right.get("set", [right]) if isinstance(right, dict) else right if isinstance(right, list) else [right]
        if op in ("==", "in", "!="):
            return _is_in(value, wanted, self, key) != (op == "!=")
        numbers = {"<": value < right, ">": value > right, "<=": value <= right, ">=": value >= right}
        if op in numbers:
            return bool(numbers[op])
        raise Unknown

    def is_in(self, key: tuple[str, str, str], value: Any, element: Any) -> bool:
        """One element of a set; a name stands for the set of that name."""
        if isinstance(element, str) and element.startswith("@"):
            return _is_in(value, self._elements(key, element), self, key)
        if isinstance(element, dict):
            return _in_dict(value, element)
        if isinstance(element, str) and element.endswith("*"):
            return str(value).startswith(element[:-1])
        return bool(value == element)


def _of_iptables(body: Any) -> str:
    """A statement that nft has from iptables: only a target says all of itself. Raises Unknown."""
    words = {"REJECT": "reject", "LOG": "", "comment": ""}
    name = body.get("name", "") if isinstance(body, dict) else ""
    if name not in words:
        raise Unknown
    return words[name]


def _key(body: dict[str, Any], name: str) -> tuple[str, str, str]:
    return body["family"], body["table"], body[name]


def _value(left: Any, way: Way) -> Any:
    """What a guest's first packet to us has there. Raises Unknown."""
    if not isinstance(left, dict):
        raise Unknown
    kind, body = next(iter(left.items()))
    known: dict[str, Any]
    if kind == "meta":
        known = {
            "iifname": way.device,
            "iif": way.device,
            "l4proto": "tcp",
            "nfproto": "ipv6" if way.is_v6 else "ipv4",
            "protocol": "ip6" if way.is_v6 else "ip",
            "pkttype": "host",
        }
        name = body["key"]
    elif kind == "payload":
        known = {"dport": way.port, "daddr": way.address, "protocol": "tcp", "nexthdr": "tcp"}
        name = body.get("field", "")
        if name in ("daddr", "protocol", "nexthdr") and (body["protocol"] == "ip6") != way.is_v6:
            return None  # of the other kind of address: never equal
        if name == "dport" and body["protocol"] not in ("tcp", "th"):
            return None
    elif kind == "ct":
        known, name = {"state": "new", "status": "", "direction": "original"}, body["key"]
    elif kind == "fib":
        known, name = {"type": "local"}, body["result"]
    else:
        raise Unknown
    if name not in known:
        raise Unknown
    return known[name]


def _is_in(value: Any, wanted: Sequence[Any], rules: Nft, key: tuple[str, str, str]) -> bool:
    return any(rules.is_in(key, value, element) for element in wanted)


def _in_dict(value: Any, element: dict[str, Any]) -> bool:
    if "range" in element:
        low, high = element["range"]
        return _as_number(low) <= _as_number(value) <= _as_number(high)
    if "prefix" in element:
        net = ipaddress.ip_network(f"{element['prefix']['addr']}/{element['prefix']['len']}", strict=False)
        return value is not None and ipaddress.ip_address(value) in net
    if "elem" in element:  # an element with a timeout or counter
        inner = element["elem"]["val"]
        return _in_dict(value, inner) if isinstance(inner, dict) else bool(value == inner)
    if "set" in element:
        return any(_in_dict(value, e) if isinstance(e, dict) else value == e for e in element["set"])
    raise Unknown


def _as_number(value: Any) -> int:
    if isinstance(value, int):
        return value
    try:
        return int(ipaddress.ip_address(value))
    except ValueError:
        raise Unknown from None


# ---- iptables-save ----


class Iptables:
    """The filter table of `iptables-save` or `ip6tables-save`."""

    def __init__(self, text: str) -> None:
        self._chains: dict[str, _Chain] = {}
        lines = iter(text.splitlines())
        for line in lines:
            if line == "*filter":
                break
        for line in lines:
            if line == "COMMIT":
                break
            self._take(line)

    def _take(self, line: str) -> None:
        if line.startswith(":"):
            name, policy = line[1:].split()[:2]
            self._chains[name] = _Chain(policy=DROP if policy == "DROP" else ACCEPT)
        elif line.startswith("-A "):
            words = shlex.split(line)
            self._chains.setdefault(words[1], _Chain()).rules.append(words[2:])

    def stops(self, way: Way) -> Place | None:
        """INPUT, where the packet is dropped in its course."""
        verdict = self._run("INPUT", way, 0)
        chain = self._chains.get("INPUT", _Chain())
        dropped = verdict == DROP or (verdict in (GO_ON, RETURN) and chain.policy == DROP)
        return Place("ip6" if way.is_v6 else "ip", "filter", "INPUT") if dropped else None

    def _run(self, name: str, way: Way, depth: int) -> str:
        for rule in self._chains.get(name, _Chain()).rules if depth <= _DEPTH else ():
            try:
                target, goes = _match(rule, way)
            except Unknown:
                continue
            verdict = self._verdict(target, goes, way, depth)
            if verdict != GO_ON:
                return verdict
        return GO_ON

    def _verdict(self, target: str, goes: bool, way: Way, depth: int) -> str:
        if target in ("ACCEPT", "RETURN"):
            return target.lower()
        if target in ("DROP", "REJECT"):
            return DROP
        if target not in self._chains:
            return GO_ON
        verdict = self._run(target, way, depth + 1)
        if verdict in (ACCEPT, DROP):
            return verdict
        return RETURN if goes else GO_ON


def _match(words: Sequence[str], way: Way) -> tuple[str, bool]:
    """(target, goto) of a rule that matches, ("", False) where it does not. Raises Unknown."""
    target, goes, inverted = "", False, False
    rest = iter(words)
    for word in rest:
        if word == "!":
            inverted = True
            continue
        if word in ("-j", "-g"):
            target, goes = next(rest), word == "-g"
            break
        if word == "-m":
            next(rest)
            continue
        if _option(word, next(rest, ""), way) == inverted:
            return "", False
        inverted = False
    return target, goes


def _option(word: str, value: str, way: Way) -> bool:
    if word in ("-i", "--in-interface"):
        return way.device.startswith(value[:-1]) if value.endswith("+") else way.device == value
    if word in ("-p", "--protocol"):
        return value in ("tcp", "6", "all")
    if word in ("--dport", "--dports"):
        return any(low <= way.port <= high for low, high in _ports(value))
    if word in ("-d", "--destination"):
        return ipaddress.ip_address(way.address) in ipaddress.ip_network(value, strict=False)
    if word in ("--ctstate", "--state"):
        return "NEW" in value.split(",")
    if word == "--dst-type":
        return value == "LOCAL"
    if word == "--comment":
        return True
    raise Unknown


def _ports(text: str) -> Iterator[tuple[int, int]]:
    for part in text.split(","):
        low, _, high = part.partition(":")
        yield int(low or 0), int(high or (low if ":" not in part else 65535))
