# SPDX-License-Identifier: Apache-2.0
"""AppArmor is told of exactly one path of exactly one domain."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from lxml import etree

from orion_virt.domain import apparmor
from orion_virt.domain.apparmor import arguments
from orion_virt.errors import Conflict

UUID = "11111111-2222-3333-4444-555555555555"
CONFINED = etree.fromstring(f"""<domain type='kvm'><name>vm1</name><uuid>{UUID}</uuid>
<memory>1024</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os><devices/>
<seclabel type='dynamic' model='dac' relabel='yes'><label>+64055:+107</label></seclabel>
<seclabel type='dynamic' model='apparmor' relabel='yes'><label>libvirt-{UUID}</label><imagelabel>libvirt-{UUID}</imagelabel>
</seclabel></domain>""")
FREE = etree.fromstring(f"<domain><name>vm1</name><uuid>{UUID}</uuid><devices/></domain>")
PATH = f"/dev/shm/orion-{UUID}"


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virt-aa-helper that writes down how it was called, and fails where a file says so."""
    program = tmp_path / "virt-aa-helper"
    program.write_text(f"""#!/bin/sh
echo "$@" >>{tmp_path}/called
cat >{tmp_path}/xml
[ ! -e {tmp_path}/fail ] || {{ echo "error: no such profile" >&2; exit 1; }}
""")
    program.chmod(0o755)
    monkeypatch.setattr(apparmor, "HELPERS", (str(program),))
    return tmp_path


def test_the_one_path_of_that_domain(helper: Path) -> None:
    apparmor.allow(CONFINED, PATH)
    assert (helper / "called").read_text() == f"-r -u libvirt-{UUID} -F {PATH}\n"
    assert UUID in (helper / "xml").read_text()


def test_a_domain_that_is_not_confined(helper: Path) -> None:
    apparmor.allow(FREE, PATH)
    assert not (helper / "called").exists()


def test_a_refusal_says_what_to_do(helper: Path) -> None:
    (helper / "fail").touch()
    with pytest.raises(Conflict, match="no such profile") as error:
        apparmor.allow(CONFINED, PATH)
    assert "start it again" in error.value.hint


@pytest.mark.skipif(apparmor.helper() is None, reason="virt-aa-helper is not installed")
def test_libvirts_own_helper_understands(tmp_path: Path) -> None:
    """A dry run: it shows the rule that it would add, and there is one."""
    program = apparmor.helper()
    assert program is not None
    (tmp_path / "region").write_bytes(b"")
    done = subprocess.run([program, "-d", *arguments(f"libvirt-{UUID}", str(tmp_path / "region"))],
                          input=etree.tostring(CONFINED), capture_output=True, check=True)
    rules = re.findall(r'^\s+"(.+)" (\w+),$', (done.stdout + done.stderr).decode(), re.M)
    assert rules == [(str(tmp_path / "region"), "rwk")]


def test_no_helper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(apparmor, "HELPERS", (str(tmp_path / "none"),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Conflict, match="virt-aa-helper is not found"):
        apparmor.allow(CONFINED, PATH)
