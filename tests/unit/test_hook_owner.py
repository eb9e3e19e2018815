# SPDX-License-Identifier: Apache-2.0
"""QEMU's group: from server.conf, qemu.conf, the passwd database, in that order."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

import pytest

from orion_virt.hook import owner

USERS = {"libvirt-qemu": (64055, 107), "qemu": (107, 108), "virt": (3000, 3001), "ann": (1000, 109)}
GROUPS = {"kvm": (107, ["ann", "libvirt-qemu"]), "qemu": (108, []), "virt": (3001, []), "root": (0, [])}


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty qemu.conf on a machine with these users and groups."""
    users = {n: pwd.struct_passwd((n, "x", uid, gid, "", "/", "/bin/sh")) for n, (uid, gid) in USERS.items()}
    groups = {n: grp.struct_group((n, "x", gid, members)) for n, (gid, members) in GROUPS.items()}
    monkeypatch.setattr(pwd, "getpwnam", users.__getitem__)
    monkeypatch.setattr(pwd, "getpwall", lambda: list(users.values()))
    monkeypatch.setattr(pwd, "getpwuid", {u.pw_uid: u for u in users.values()}.__getitem__)
    monkeypatch.setattr(grp, "getgrnam", groups.__getitem__)
    monkeypatch.setattr(grp, "getgrgid", {g.gr_gid: g for g in groups.values()}.__getitem__)
    monkeypatch.setattr(owner, "QEMU_CONF", str(tmp_path / "qemu.conf"))
    path = tmp_path / "qemu.conf"
    path.write_text('#user = "nobody"\n#group = "nogroup"\nsecurity_driver = "none"\n')
    return path


def test_the_users_own_group_where_nothing_is_said(conf: Path) -> None:
    """Debian: group is libvirt-qemu, but what opens files is kvm, the group of QEMU's user."""
    found = owner.find()
    assert (found.gid, found.group) == (107, "kvm") and "libvirt-qemu" in found.how
    conf.unlink()
    assert owner.find().gid == 107


@pytest.mark.parametrize(("text", "gid"), [
    ('group = "qemu"', 108), ("group='qemu' # ours", 108), ('group = "+3001"', 3001), ('group = "3001"', 3001),
    ('user = "virt"', 3001), ('user = "+107"', 108), ('user = "virt"\ngroup = "kvm"', 107), ('user = ""', 107)])
def test_what_qemu_conf_says(conf: Path, text: str, gid: int) -> None:
    conf.write_text(conf.read_text() + text + "\n")
    assert owner.find().gid == gid


def test_what_server_conf_says_wins(conf: Path) -> None:
    conf.write_text('group = "kvm"\n')
    assert owner.find("qemu").gid == 108
    assert owner.find("+42").group == "+42"


@pytest.mark.parametrize(("configured", "text", "words"), [
    ("none", "", ["'none'", "shm_group_name", "does not exist"]),
    ("auto", 'group = "none"', ["'none'", "qemu.conf", "does not exist"]),
    ("auto", 'user = "none"', ["none", "passwd", "shm_group_name"])])
def test_what_cannot_be_told(conf: Path, configured: str, text: str, words: list[str]) -> None:
    conf.write_text(text + "\n")
    with pytest.raises(owner.Unknown) as error:
        owner.find(configured)
    assert all(word in str(error.value) for word in words)


def test_no_user_of_qemu_at_all(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "USERS", ("nobody-here",))
    with pytest.raises(owner.Unknown, match="nobody-here"):
        owner.find()


def test_people_who_are_in_the_group(conf: Path) -> None:
    assert owner.members(107) == ["ann"]
    assert owner.members(109) == ["ann"]
    assert owner.members(4242) == []
