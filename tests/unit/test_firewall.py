# SPDX-License-Identifier: Apache-2.0
"""The packet filter as its tools show it (what they print is recorded), and the command for whoever manages it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_doctor import Fake, domain

from orion_virt.config import ServerConfig
from orion_virt.doctor import firewall
from orion_virt.doctor.facts import Facts, Finding
from orion_virt.doctor.ruleset import Iptables, Nft, Place, Way

WAY = Way("virbr0", "192.168.122.1", 9960)
ADDRESSES = json.dumps(
    [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1"}]},
        {"ifname": "virbr0", "addr_info": [{"local": "192.168.122.1"}, {"local": "fd00::1"}]},
    ]
)
DROPS = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"
OPEN = DROPS.replace("INPUT DROP", "INPUT ACCEPT")


@pytest.fixture
def machine(tmp_path: Path) -> Fake:
    made = Fake(tmp_path)
    made.programs = {"ip -j addr": ADDRESSES, "iptables-save -t filter": DROPS, "ip6tables-save -t filter": OPEN}
    return made


def find(machine: Fake, *domains: dict[str, Any]) -> list[Finding]:
    return list(firewall.firewall(Facts(machine, ServerConfig(), {}, list(domains or (domain(),)))))


def fixes(found: Sequence[Finding]) -> list[str]:
    return [f.fix for f in found if f.level == "error"]


def test_iptables_alone(machine: Fake) -> None:
    found = find(machine)
    assert [f.level for f in found] == ["error", "error"]
    assert found[1].text == "the packet filter (ip filter, chain INPUT) keeps vm1 from 192.168.122.1:9960"
    assert fixes(found) == [
        "iptables -I INPUT -i virbr0 -d 192.168.122.1 -p tcp --dport 9123 -j ACCEPT",
        "iptables -I INPUT -i virbr0 -d 192.168.122.1 -p tcp --dport 9960 -j ACCEPT",
    ]
    machine.programs["iptables-save -t filter"] = OPEN
    assert [f.level for f in find(machine)] == ["ok", "ok"]


def test_ipv6(machine: Fake) -> None:
    machine.programs["ip6tables-save -t filter"] = DROPS
    found = find(machine, domain(server_addrs=["[fd00::1]:9960"], controller_addr=""))
    assert fixes(found) == ["ip6tables -I INPUT -i virbr0 -d fd00::1 -p tcp --dport 9960 -j ACCEPT"]


def test_firewalld_is_told_by_its_own_tool(machine: Fake) -> None:
    machine.programs |= {
        "firewall-cmd --state": "running\n",
        "firewall-cmd --get-zone-of-interface=virbr0": "libvirt\n",
    }
    assert fixes(find(machine))[1] == (
        'firewall-cmd --permanent --zone=libvirt --add-rich-rule=\'rule family="ipv4" destination address="192.168.122.1" '
        'port port="9960" protocol="tcp" accept\' && firewall-cmd --reload'
    )
    del machine.programs["firewall-cmd --get-zone-of-interface=virbr0"]  # a device in no zone is in the default one
    machine.programs["firewall-cmd --get-default-zone"] = "public\n"
    assert "--zone=public" in fixes(find(machine))[1]


def test_ufw_is_told_by_its_own_tool(machine: Fake) -> None:
    machine.programs["ufw status"] = "Status: active\n\nTo   Action  From\n"
    assert fixes(find(machine))[1] == "ufw allow in on virbr0 to 192.168.122.1 port 9960 proto tcp"
    machine.programs["ufw status"] = "Status: inactive\n"
    assert fixes(find(machine))[1].startswith("iptables -I")


def test_what_needs_no_rule(machine: Fake) -> None:
    slirp = domain(server_addrs=["10.0.2.2:9960"], controller_addr="10.0.2.2:9123")
    assert find(machine, slirp) == [] and find(machine, domain(state="shut off")) == []
    assert find(machine, domain(server_addrs=[], controller_addr="")) == []


def test_while_no_domain_runs_libvirts_networks_are_looked_at(machine: Fake) -> None:
    facts = Facts(machine, ServerConfig(), {}, [], bridges=("virbr0",))
    found = list(firewall.firewall(facts))
    assert [f.text.partition("keeps ")[2] for f in found][:2] == [
        "guests from 192.168.122.1:9123",
        "guests from 192.168.122.1:9960",
    ]
    assert len(fixes(found)) == 2 and len(found) == 4, "IPv6 is open"
    assert list(firewall.firewall(replace(facts, bridges=("docker0",)))) == []


def test_without_rules_to_read(machine: Fake) -> None:
    machine.programs = {"ip -j addr": ADDRESSES}
    facts = Facts(machine, ServerConfig(), {}, [domain()])
    assert [(f.level, f.fix) for f in firewall.firewall(facts)] == [("info", "")]
    assert [f.fix for f in firewall.firewall(replace(facts, is_root=False))] == ["run it as root"]


@pytest.mark.parametrize(
    ("rules", "stops"),
    [
        ("", True),
        ("-A INPUT -j ACCEPT", False),
        ("-A INPUT -i virbr0 -j ACCEPT", False),
        ("-A INPUT -i virbr1 -j ACCEPT", True),
        ("-A INPUT -i vir+ -p tcp -m tcp --dport 9960 -j ACCEPT", False),
        ("-A INPUT ! -i eth0 -j ACCEPT", False),
        ("-A INPUT ! -i virbr0 -j ACCEPT", True),
        ("-A INPUT -p udp -j ACCEPT", True),
        ("-A INPUT -p tcp --dport 9000:9959 -j ACCEPT", True),
        ("-A INPUT -p tcp -m multiport --dports 22,9000:9999 -j ACCEPT", False),
        ("-A INPUT -d 192.168.122.0/24 -j ACCEPT", False),
        ("-A INPUT -d 10.0.0.0/8 -j ACCEPT", True),
        ("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", True),
        ("-A INPUT -m conntrack --ctstate NEW -j ACCEPT", False),
        ("-A INPUT -s 10.0.0.0/8 -j ACCEPT", True),
        ('-A INPUT -m comment --comment "a b" -j ACCEPT', False),
        ("-A INPUT -j LOG --log-prefix x\n-A INPUT -j ACCEPT", False),
        ("-A INPUT -j OWN\n-A OWN -p tcp --dport 9960 -j ACCEPT", False),
        ("-A INPUT -j OWN\n-A OWN -j RETURN\n-A INPUT -j ACCEPT", False),
        ("-A INPUT -g OWN\n-A OWN -p udp -j ACCEPT\n-A INPUT -j ACCEPT", True),
        ("-A INPUT -j OWN\n-A OWN -j OWN\n-A INPUT -j ACCEPT", False),
        ("-A INPUT -p tcp --dport 9960 -j REJECT --reject-with tcp-reset\n-A INPUT -j ACCEPT", True),
        ("-A INPUT -m mark --mark 0x1 -j REJECT\n-A INPUT -j ACCEPT", False),
    ],
)
def test_iptables(rules: str, stops: bool) -> None:
    text = f"# comment\n*nat\n-A INPUT -j DROP\nCOMMIT\n*filter\n:INPUT DROP [0:0]\n:OWN - [0:0]\n{rules}\nCOMMIT\n"
    assert Iptables(text).stops(WAY) == (Place("ip", "filter", "INPUT") if stops else None)


def nft(*rules: list[Any], policy: str = "drop", family: str = "inet", more: Sequence[dict[str, Any]] = ()) -> Nft:
    chain = {
        "family": family,
        "table": "t",
        "name": "in",
        "type": "filter",
        "hook": "input",
        "prio": 0,
        "policy": policy,
    }
    listed = [{"rule": {"family": family, "table": "t", "chain": "in", "expr": rule}} for rule in rules]
    return Nft({"nftables": [{"metainfo": {}}, {"chain": chain}, *more, *listed]})


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
IIF = {"meta": {"key": "iifname"}}
DADDR = {"payload": {"protocol": "ip", "field": "daddr"}}
STATE = {"ct": {"key": "state"}}
YES: dict[str, Any] = {"accept": None}


@pytest.mark.parametrize(
    ("expression", "stops"),
    [
        ([], True),
        ([YES], False),
        ([match(IIF, "virbr0"), YES], False),
        ([match(IIF, "virbr*"), YES], False),
        ([match(IIF, "eth0"), YES], True),
        ([match(IIF, "eth0", "!="), {"counter": {}}, YES], False),
        ([match(DPORT, {"set": [22, {"range": [9000, 9999]}]}), YES], False),
        ([match(DPORT, {"range": [1, 1024]}), YES], True),
        ([match(DPORT, 9960, ">"), YES], True),
        ([match(DPORT, 9959, ">"), YES], False),
        ([match(DADDR, {"prefix": {"addr": "192.168.0.0", "len": 16}}), YES], False),
        ([match(STATE, ["established", "related"], "in"), YES], True),
        ([match(STATE, {"set": ["established", "new"]}), YES], False),
        ([match({"payload": {"protocol": "ip6", "field": "daddr"}}, "::1"), YES], True),
        ([match({"payload": {"protocol": "udp", "field": "dport"}}, 9960), YES], True),
        ([match({"payload": {"protocol": "ip", "field": "saddr"}}, "1.2.3.4"), YES], True),
        ([match(DPORT, "@ports"), YES], False),
        ([match({"&": [{"payload": {}}, 1]}, 1), YES], True),
        ([{"xt": None}, YES], True),
        ([{"xt": {"type": "match", "name": "multiport"}}, YES], True),
        ([{"xt": {"type": "match", "name": "comment"}}, YES], False),
        ([{"xt": {"type": "target", "name": "REJECT"}}, YES], True),
        ([{"vmap": {"key": IIF, "data": {"set": [["eth0", {"drop": None}], ["virbr0", YES]]}}}], False),
        ([{"vmap": {"key": DPORT, "data": "@verdicts"}}], False),
        ([{"jump": {"target": "more"}}], False),
        ([{"goto": {"target": "empty"}}], True),
        ([match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), YES], False),
    ],
)
def test_nft(expression: list[Any], stops: bool) -> None:
    place = {"family": "inet", "table": "t"}
    more = [
        {"set": place | {"name": "ports", "elem": [9960, 9123]}},
        {"map": place | {"name": "verdicts", "elem": [[9960, YES]]}},
        {"chain": place | {"name": "more"}},
        {"chain": place | {"name": "empty"}},
        {"rule": place | {"chain": "more", "expr": [match(DPORT, {"set": [{"elem": {"val": 9960}}]}), YES]}},
    ]
    found = nft(expression, more=more).stops(WAY)
    assert found == (Place("inet", "t", "in") if stops else None)


def test_each_base_chain_can_stop_it() -> None:
    late = {
        "chain": {
            "family": "ip",
            "table": "z",
            "name": "last",
            "type": "filter",
            "hook": "input",
            "prio": 10,
            "policy": "drop",
        }
    }
    assert nft([YES], more=[late]).stops(WAY) == Place("ip", "z", "last"), "accept is final for its own chain only"
    assert nft([YES], more=[late]).stops(Way("virbr0", "fd00::1", 9960)) is None, "a chain of IPv4"
    nat = {"chain": late["chain"] | {"type": "nat"}}
    assert nft([{"reject": None}], policy="accept").stops(WAY) is not None and nft([YES], more=[nat]).stops(WAY) is None


def test_nft_is_told_where_the_packet_stops(machine: Fake) -> None:
    chain = {
        "family": "inet",
        "table": "fw",
        "name": "input",
        "type": "filter",
        "hook": "input",
        "prio": 0,
        "policy": "drop",
    }
    machine.programs["iptables-save -t filter"] = "# Table `filter' is incompatible, use 'nft' tool.\n"
    machine.programs["nft -j list ruleset"] = json.dumps({"nftables": [{"chain": chain}]})
    assert fixes(find(machine))[1] == (
        'nft insert rule inet fw input iifname "virbr0" ip daddr 192.168.122.1 tcp dport 9960 accept'
    )
    machine.programs["nft -j list ruleset"] = "not JSON"
    assert [f.level for f in find(machine)] == ["ok", "ok"], "ip6tables' rules are all that is there"


def test_rules_of_iptables_are_read_by_its_own_tool(machine: Fake) -> None:
    """nft shows the same table, without what iptables' matches match."""
    chain = {
        "family": "ip",
        "table": "filter",
        "name": "INPUT",
        "type": "filter",
        "hook": "input",
        "prio": 0,
        "policy": "drop",
    }
    machine.programs["nft -j list ruleset"] = json.dumps({"nftables": [{"chain": chain}]})
    machine.programs["iptables-save -t filter"] = DROPS.replace(
        "COMMIT", "-A INPUT -m multiport -p tcp --dports 9000:9999 -j ACCEPT\nCOMMIT"
    )
    assert [f.level for f in find(machine)] == ["ok", "ok"]


def test_the_old_iptables_is_not_made_to_have_tables(machine: Fake) -> None:
    machine.programs |= {
        "iptables --version": "iptables v1.8.9 (legacy)",
        "ip6tables --version": "ip6tables v1.8.9 (legacy)",
    }
    assert [f.level for f in find(machine)] == ["info"]
    machine.write("/proc/net/ip_tables_names", "nat\nfilter\n")
    assert [f.level for f in find(machine)] == ["error", "error"]
