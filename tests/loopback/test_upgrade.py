# SPDX-License-Identifier: Apache-2.0
"""The files of a host are replaced while guests compute: programs, workers and regions go on, over the restart that follows too."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import host
import pytest

DELETED = "libexecutor.so (deleted)"
CLIENT = str(Path(__file__).with_name("client.py"))


class Installed(host.Host):
    """oriond from a copy of the package, as from an installed one."""

    @property
    def site(self):
        return self.dir / "site"

    @property
    def server_env(self):
        return super().server_env | {"PYTHONPATH": str(self.site)}

    def put(self):
        """Each file appears whole under its name, as dpkg, rpm and pip put it."""
        for source in sorted((host.ROOT / "orion_virt").rglob("*")):
            target = self.site / source.relative_to(host.ROOT)
            if source.is_file() and "__pycache__" not in source.parts:
                target.parent.mkdir(parents=True, exist_ok=True)
                new = target.with_name(target.name + ".new")
                shutil.copy(source, new)
                new.rename(target)


@pytest.fixture
def installed(tmp_path):
    if not (host.LIB / "libexecutor.so").exists():
        pytest.skip("libexecutor.so is not built: run `make build`")
    made = Installed(tmp_path)
    made.put()
    made.start()
    try:
        assert made.command("region-create", uuid=made.uuid, size_mib=made.region_mib)["ok"]
        yield made
    finally:
        made.kill()
        made.region.unlink(missing_ok=True)


def start(env, **variables):
    process = subprocess.Popen([sys.executable, CLIENT, "loop", "60"], env=env.env | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == "READY True\n"
    return process


def test_upgrade_and_restart(installed):
    process = start(installed)
    (channel,) = installed.status()["channels"]
    worker, region = channel["worker"], installed.region.stat().st_ino
    loaded = Path(f"/proc/{worker}/maps").read_text()
    installed.put()
    assert DELETED in Path(f"/proc/{worker}/maps").read_text() and DELETED not in loaded
    for _ in range(2):  # the warm worker is of the former files, the next one of the new
        done = installed.run([sys.executable, CLIENT, "once"])
        assert (done.returncode, done.stdout) == (0, "READY True\nDONE\n"), done.stderr
    assert host.wait_for(lambda: "was upgraded since this oriond started" in installed.output())
    assert installed.output().count("was upgraded since") == 1
    assert process.poll() is None and installed.status()["channels"][0]["worker"] == worker
    os.kill(worker, 0)

    assert installed.stop() == 0
    assert installed.region.stat().st_ino == region
    installed.start()
    assert process.poll() is None and installed.status()["channels"][0]["worker"] == worker
    done = installed.run([sys.executable, CLIENT, "once"])
    assert (done.returncode, done.stdout) == (0, "READY True\nDONE\n"), done.stderr
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=180)
    assert "KeyboardInterrupt" in err and "wrong bytes" not in err and "the vGPU is lost" not in err
    assert host.wait_for(lambda: not installed.status()["channels"])
    assert installed.region.stat().st_ino == region
    assert "Traceback" not in installed.output()


@pytest.mark.skipif(os.geteuid() != 0, reason="install-client needs root")
def test_the_guests_files_under_a_running_program(oriond_env, tmp_path):
    root = tmp_path / "guest"
    (root / "etc").mkdir(parents=True)

    def install_client(*options):
        subprocess.run(["sh", str(host.LIB / "install-client"), "-q", *options], env={"PATH": os.environ["PATH"], "ORION_ROOT": str(root)},
                       check=True, timeout=180)

    install_client("--force")
    process = start(oriond_env, LD_LIBRARY_PATH=str(root / "usr/lib/orion"))
    for options in (["--force"], ["--uninstall"]):
        install_client(*options)
        assert "libcuda.so.1 (deleted)" in Path(f"/proc/{process.pid}/maps").read_text()
        (channel,) = oriond_env.status()["channels"]
        assert process.poll() is None and channel["pid"] == process.pid
    assert not (root / "usr/lib/orion").exists()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=180)
    assert "KeyboardInterrupt" in err and "wrong bytes" not in err and "the vGPU is lost" not in err
