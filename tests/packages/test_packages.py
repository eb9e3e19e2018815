# SPDX-License-Identifier: Apache-2.0
"""What `make packages` builds: its metadata, and install, upgrade and removal on whole systems."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from host import LIB, ROOT
from packages.roots import Root

pytestmark = [pytest.mark.root]
Enter = Callable[[str], Root]
Packages = dict[str, Path]
CLIENT_FILES = ["/etc/ld.so.conf.d/orion.conf", "/etc/orion/client.conf", "/usr/bin/orion-check", "/usr/bin/orion-smi",
                "/usr/lib/orion/libcuda.so.1", "/usr/lib/orion/libnvidia-ml.so.1", "/usr/lib/udev/rules.d/60-orion-ivshmem.rules"]


def rpm(*arguments: str, root: Root | None = None) -> str:
    """The machine's rpm, on the database of `root`."""
    if root is None:
        done = subprocess.run(["rpm", *arguments], capture_output=True, text=True, check=False, timeout=300)
    else:
        done = root.outside("rpm", "--root", root.mount_point, "--dbpath", "/var/lib/rpm", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def field(deb: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", str(deb), name], capture_output=True, text=True, check=True).stdout.strip()


def present(root: Root, names: list[str]) -> list[str]:
    return [name for name in names if (root.path / name.lstrip("/")).is_symlink() or (root.path / name.lstrip("/")).exists()]


# ---- what they say ----

def test_metadata_of_the_debs(packages: Packages) -> None:
    deb = packages["orion-virt 1.0 deb"]
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert (field(deb, "Version"), field(deb, "Architecture")) == ("1.0", "amd64")
    assert f"python3 (>= {python}), python3 (<< {sys.version_info[0]}.{sys.version_info[1] + 1})" in field(deb, "Depends")
    assert re.search(r"libc6 \(>= 2\.\d+\), libvirt0 \(>= \d+\.\d+\.\d+\)", field(deb, "Depends"))
    listed = subprocess.run(["dpkg-deb", "-c", str(deb)], capture_output=True, text=True, check=True).stdout
    for name in ("./usr/bin/oriond", "./usr/lib/systemd/system/oriond.service", "./usr/lib/tmpfiles.d/orion.conf",
                 "./usr/lib/orion/python/orion_virt/_lib/install-client", "./usr/lib/orion/python/hooks/qemu.d/50-orion-virt",
                 "./usr/lib/orion/python/ivshmem/server.py", "./usr/lib/orion/python/orion_virt/domain/vgpu.rng", "./usr/bin/orion-doorbell",
                 "./usr/share/orion-virt/monitoring/grafana-dashboard.json", "./usr/share/orion-virt/monitoring/alerts.yml",
                 "./usr/lib/orion/python/orion_virt/controller/web/index.html", "./usr/lib/orion/python/prometheus_client/__init__.py",
                 "./usr/share/man/man1/orion-virt.1", "./usr/share/man/man8/oriond.8",
                 "./usr/share/bash-completion/completions/orion-virt", "./usr/share/zsh/site-functions/_orion-virt"):
        assert f" {name}\n" in listed
    assert {line.split()[1] for line in listed.splitlines()} == {"root/root"}
    assert not [line for line in listed.splitlines() if "/tmp/" in line or str(ROOT) in line]
    assert field(packages["orion-client 1.0 deb"], "Depends") == "libc6 (>= 2.17)"


def test_metadata_of_the_rpms(packages: Packages) -> None:
    for name in ("orion-virt", "orion-client"):
        path = str(packages[f"{name} 1.0 rpm"])
        assert rpm("-qp", "--qf", "%{NAME} %{VERSION} %{ARCH} %{LICENSE}", path) == f"{name} 1.0 x86_64 Apache-2.0"
        assert "after_install" in rpm("-qp", "--scripts", path)
    assert set(CLIENT_FILES) <= set(rpm("-qpl", str(packages["orion-client 1.0 rpm"])).split("\n"))
    assert rpm("-qpc", str(packages["orion-client 1.0 rpm"])) == "/etc/orion/client.conf\n"
    assert f"python(abi) = {sys.version_info[0]}.{sys.version_info[1]}\n" in rpm("-qpR", str(packages["orion-virt 1.0 rpm"]))


def test_deb_and_rpm_have_the_same_files(packages: Packages) -> None:
    for name in ("orion-virt", "orion-client"):
        deb = subprocess.run(["dpkg-deb", "-c", str(packages[f"{name} 1.0 deb"])], capture_output=True, text=True, check=True).stdout
        in_deb = {line.split()[5].lstrip(".") for line in deb.splitlines() if not line.startswith("d")}
        in_rpm = set(rpm("-qpl", "--noartifact", str(packages[f"{name} 1.0 rpm"])).splitlines())
        assert in_deb <= in_rpm and all(extra.startswith(("/usr/lib/orion", "/etc/orion", "/usr/share/doc/orion", "/usr/share/orion-virt", "/etc/ld.so", "/usr/lib/systemd",
                                                          "/usr/lib/tmpfiles")) for extra in in_rpm - in_deb)


# ---- the guest's ----

def test_the_guests_deb(enter: Enter, packages: Packages) -> None:
    root = enter("own")
    for version in ("1.0", "1.1"):
        root.put(packages[f"orion-client {version} deb"], f"/{version}.deb")
    root.must("useradd", "-m", "ann")
    said = root.must("dpkg", "-i", "/1.0.deb", SUDO_USER="ann")
    assert "User ann was added to the group orion" in said
    assert present(root, CLIENT_FILES) == CLIENT_FILES
    assert "ann" in root.must("getent", "group", "orion")
    assert "/usr/lib/orion/libcuda.so.1" in root.must("ldconfig", "-p")
    assert "NCCL_P2P_LEVEL=SYS" in (root.path / "etc/nccl.conf").read_text()
    root.must("sh", "-c", "echo '; mine' >> /etc/orion/client.conf")
    assert "Users of vGPUs must be in the group" in root.must("dpkg", "-i", "/1.1.deb")
    assert (root.path / "etc/orion/client.conf").read_text().endswith("; mine\n")
    root.must("dpkg", "-r", "orion-client")
    assert present(root, [*CLIENT_FILES, "/etc/nccl.conf", "/usr/lib/orion", "/dev/nvidiactl"]) == ["/etc/orion/client.conf"]
    assert "/usr/lib/orion" not in root.must("ldconfig", "-p")
    root.must("dpkg", "-P", "orion-client")
    assert present(root, ["/etc/orion"]) == []


def test_a_package_takes_over_from_install_client(enter: Enter, packages: Packages) -> None:
    root = enter("own")
    root.put(packages["orion-client 1.0 deb"], "/1.0.deb")
    root.put(LIB / "install-client", "/install-client")
    root.must("sh", "/install-client", "-q")
    root.must("dpkg", "--force-confold", "-i", "/1.0.deb")
    refused = root.run("sh", "/install-client", "-q")
    assert refused.returncode == 1 and "as the package orion-client" in refused.stderr
    root.must("dpkg", "-r", "orion-client")
    assert present(root, CLIENT_FILES) == ["/etc/orion/client.conf"]


def test_the_guests_rpm(enter: Enter, packages: Packages) -> None:
    """In a root without rpm: the machine's own works on it, with its database there."""
    root = enter("own")
    for version, option in (("1.0", "-i"), ("1.1", "-U")):
        rpm(option, "--nodeps", str(packages[f"orion-client {version} rpm"]), root=root)
        assert present(root, CLIENT_FILES) == CLIENT_FILES
        assert "orion:" in (root.path / "etc/group").read_text() and (root.path / "etc/nccl.conf").exists()
        assert rpm("-q", "orion-client", root=root) == f"orion-client-{version}-1.x86_64\n"
    rpm("-e", "--nodeps", "orion-client", root=root)
    assert present(root, [*CLIENT_FILES, "/etc/nccl.conf"]) == []


# ---- the host's ----

@pytest.fixture
def machine(enter: Enter, packages: Packages) -> Root:
    """This machine, which forgets it, with the package on it."""
    root = enter("machine")
    for version in ("1.0", "1.1"):
        root.put(packages[f"orion-virt {version} deb"], f"/var/{version}.deb")
    root.must("dpkg", "-i", "/var/1.0.deb")
    return root


HOST_FILES = ["/etc/orion/server.conf", "/etc/libvirt/hooks/qemu.d/50-orion-virt", "/etc/libvirt/hooks/orion-virt.env",
              "/usr/bin/oriond", "/usr/lib/systemd/system/oriond.service"]


def test_the_hosts_deb(machine: Root) -> None:
    assert present(machine, HOST_FILES) == HOST_FILES
    assert present(machine, ["/etc/systemd/system/oriond.service", "/usr/local/bin/oriond"]) == []
    env = (machine.path / "etc/libvirt/hooks/orion-virt.env").read_text()
    assert "ORION_PYTHONPATH=/usr/lib/orion/python\n" in env
    ran = machine.run("/etc/libvirt/hooks/qemu.d/50-orion-virt", "guest", "stopped", "end", "-")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert machine.must("orion-virt", "config", "check") == "/etc/orion/server.conf is in order.\n"
    assert "Python package cuda.bindings" in machine.must("orion-check", "install", "server")
    where = "import sys; sys.path.insert(0, '/usr/lib/orion/python'); import lxml, libvirt; print(lxml.__file__, libvirt.__file__)"
    assert machine.must("/usr/bin/python3", "-I", "-c", where).count("/usr/lib/orion/python/") == 2
    machine.must("sh", "-c", "echo '[server]' > /etc/orion/server.conf")
    machine.must("dpkg", "-i", "/var/1.1.deb")
    assert (machine.path / "etc/orion/server.conf").read_text() == "[server]\n"
    assert present(machine, ["/etc/orion/server.conf.new"])
    machine.must("dpkg", "-r", "orion-virt")
    assert present(machine, [*HOST_FILES, "/usr/lib/orion", "/etc/orion/server.conf.new"]) == ["/etc/orion/server.conf"]
    machine.must("dpkg", "-P", "orion-virt")
    assert present(machine, ["/etc/orion", "/var/log/orion"]) == []


def test_the_packaged_oriond_serves(machine: Root, tmp_path: Path) -> None:
    """The package's own programs and Python packages, through to a guest's CUDA."""
    machine.must("sh", "-c", "printf '[server]\\nlisten_port = 19960\\nbind_addr = 127.0.0.1\\ndriver = simulated\\n[controller]\\n"
                 "controller_addr = 127.0.0.1:19123\\n[libvirt]\\nattach = off\\n' > /etc/orion/server.conf; orion-virt build-client -o /var/c; "
                 "(oriond --with-controller > /var/oriond.out 2>&1 &)")
    probe = ("for i in $(seq 300); do orion-check runtime server > /var/check 2>&1 && break; sleep 0.1; done; cat /var/check /var/oriond.out; "
             "kill -0 $(cat /run/orion/oriond.lock)")
    said = machine.must("sh", "-c", probe)
    assert "command line : /usr/bin/oriond --with-controller \n" in said and " vGPU are free now." in said, said
    machine.must("sh", "/var/c", "-d", "/opt/client")
    done = machine.must("/opt/client/demo/orion-demo", "/opt/client/demo/kernels.ptx", "32", LD_LIBRARY_PATH="/opt/client",
                        ORION_CONTROLLER="127.0.0.1:19123", ORION_SERVER="127.0.0.1:19960")
    assert "PASSED" in done
    machine.must("sh", "-c", "kill $(cat /run/orion/oriond.lock)")


def test_the_hosts_rpm(enter: Enter, packages: Packages) -> None:
    root = enter("machine")
    for version, option in (("1.0", "-i"), ("1.1", "-U")):
        rpm(option, "--nodeps", str(packages[f"orion-virt {version} rpm"]), root=root)
        assert present(root, HOST_FILES) == HOST_FILES
        assert root.must("orion-virt", "config", "check") == "/etc/orion/server.conf is in order.\n"
    rpm("-e", "--nodeps", "orion-virt", root=root)
    assert present(root, [*HOST_FILES, "/usr/lib/orion"]) == ["/etc/orion/server.conf"]
