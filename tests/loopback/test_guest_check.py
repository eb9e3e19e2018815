# SPDX-License-Identifier: Apache-2.0
"""The guest's orion-check under every shell: the same text as the host's, and a line for each thing that can be broken."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import host
import pytest
from host import let_others_reach

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "unit" / "golden" / "check" / "client.txt"
SHELLS = [shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(shell[0])]
CANNOT = "Please make sure Orion {} is launched at the address, and the firewall is correctly set."

pytestmark = [pytest.mark.skipif(not (host.LIB / "guest" / "orion-probe").exists(), reason="run `make build` first"),
              pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]


@pytest.fixture
def client(tmp_path):
    """An installation of the client in a directory of its own, in which things can be broken."""
    lib = tmp_path / "client"
    shutil.copytree(host.LIB / "guest", lib)
    shutil.copy(ROOT / "guest-agent" / "installer" / "orion-check", lib)
    for name in ("pci", "etc"):
        (tmp_path / name).mkdir()
    return lib


def run(client, *args, shell=None, device=None, **variables):
    """orion-check with /sys/bus/pci/devices and /etc/group of the test's own."""
    tmp = client.parent
    if device:
        folder = tmp / "pci" / "0000:00:09.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text("0x1af4\n")
        (folder / "device").write_text("0x1110\n")
        if device != "without address":
            (folder / "resource2").touch(0o600)
    script = f'mount --bind {tmp}/pci /sys/bus/pci/devices && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "-", *(shell or SHELLS[0]), str(client / "orion-check"), *args]
    if device == "not ours":
        client.chmod(0o755)
        let_others_reach(client)
        argv[argv.index("-") + 1:argv.index("-") + 1] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp), "ORION_ETC": str(tmp / "etc")} | variables
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=180)


def errors(done):
    return [line.removeprefix("[Error] ") for line in done.stdout.splitlines() if line.startswith("[Error]")]


GOOD = {"info": "data_version=0.1,api_version=0.1", "devices": "res=nvidia_cuda,total=8", "free": "res=nvidia_cuda,free=8"}


def answers(**by_name):
    """A controller's, by the last word of the path, and "free" for the vGPUs that are."""
    return lambda path: by_name.get("free" if "used=true" in path else path.split("?")[0].strip("/"), "")


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: s[0])
def test_in_order_is_the_golden_text(client, web, shell):
    addr = web(answers(**GOOD))
    (client.parent / "etc" / "client.conf").write_text(f"[controller]\ncontroller_addr = {addr}\n")
    done = run(client, "runtime", "client", shell=shell, ORION_SERVER=addr)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.replace(addr, "33.31.0.1:9123") == GOLDEN.read_text()
    known = json.loads(run(client, "runtime", "client", "--json", shell=shell, ORION_SERVER=addr).stdout)
    assert known["ok"] and known["controller"]["total"] == 8 and known["errors"] == []


def test_the_host_prints_the_same(client, oriond_env):
    env = {"ORION_CONTROLLER": oriond_env.controller, "ORION_SERVER": oriond_env.server}
    ours = run(client, "runtime", "client", **env)
    theirs = oriond_env.run([host.sys.executable, "-m", "orion_virt.cli.check", "runtime", "client"],
                            env=oriond_env.server_env | env)
    assert ours.returncode == theirs.returncode == 0
    assert ours.stdout == theirs.stdout and "in environment variable. Using" in ours.stdout


def test_the_devices_header_says_where(client, oriond_env):
    done = run(client, "runtime", "client", ORION_REGION=str(oriond_env.region))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"is set as {oriond_env.controller} in shared memory device. Using" in done.stdout


def broken(client, web, nobody):
    addr = web(answers(**GOOD))
    empty = web(answers(**GOOD | {"devices": "res=nvidia_cuda,total=0", "free": "res=nvidia_cuda,free=0"}))
    other, wrong, mute = web(answers(), 404), web(answers(info="hello", devices="nothing")), web(answers(**GOOD | {"devices": "x"}))
    return [
        (nobody, addr, f"Can not reach {nobody}. {CANNOT.format('Controller')}"),
        (other, addr, f"Address {other} is reached, but what answers there is no Orion Controller: HTTP 404. "
                      "Please check controller_addr."),
        (wrong, addr, f"Address {wrong} is reached, but what answers there is no Orion Controller: no count in its answer to "
                      "/devices?res=nvidia_cuda. Please check controller_addr."),
        (mute, addr, f"Address {mute} is reached, but what answers there is no Orion Controller: no count in its answer to "
                     "/devices?res=nvidia_cuda. Please check controller_addr."),
        (empty, addr, f"No Orion Server is registered with the Orion Controller at {empty}. "
                      "Please make sure Orion Server is launched and its controller_addr is that one."),
        (addr, nobody, f"Can not reach Orion Server ({nobody}: Connection refused). {CANNOT.format('Server')}"),
    ]


def test_each_broken_thing_has_its_line(client, web, nobody):
    for controller, server, line in broken(client, web, nobody):
        done = run(client, "runtime", "client", ORION_CONTROLLER=controller, ORION_SERVER=server)
        assert (done.returncode, errors(done)) == (1, [line]), done.stdout + done.stderr
        known = run(client, "runtime", "client", "--json", ORION_CONTROLLER=controller, ORION_SERVER=server)
        assert known.returncode == 1 and json.loads(known.stdout)["errors"] == [line]


def test_something_that_is_not_http(client):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def answer():
            for _ in range(2):
                connection = server.accept()[0]
                connection.sendall(b"SSH-2.0\n")
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        addr = f"127.0.0.1:{server.getsockname()[1]}"
        done = run(client, "runtime", "client", ORION_CONTROLLER=addr)
        thread.join(10)
    assert errors(done) == [f"Address {addr} is reached, but what answers there is no Orion Controller: it does not speak HTTP. "
                            "Please check controller_addr."]


def test_a_bad_setting_is_status_2(client):
    done = run(client, "runtime", "client", ORION_CONTROLLER=":")
    assert done.returncode == 2 and "ORION_CONTROLLER=: is not valid" in done.stderr


# ---- install client ----

def table(done):
    lines = done.stdout.split("Installation summaries :\n")[1].splitlines()
    assert all(re.fullmatch(r".{40} \[(Yes|No)\]", line) for line in lines), lines
    return {line[:40].rstrip(): line.endswith("[Yes]") for line in lines}


@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: s[0])
def test_installed_but_for_the_group(client, shell):
    done = run(client, "install", "client", shell=shell, device="ours")
    missing = [label for label, there in table(done).items() if not there]
    assert missing == ([] if "\norion:" in Path("/etc/group").read_text() else ["Group orion"]), done.stdout
    assert done.returncode == bool(missing) and len(errors(done)) == len(missing)


@pytest.mark.parametrize(("what", "label", "remedy"), [
    ("libcuda.so.1", "Orion client library", "run install-client again"),
    ("libnvidia-ml.so.1", "Orion NVML library", "run install-client again"),
    ("orion-smi", "Programs", "run install-client again"),
])
def test_a_missing_file(client, what, label, remedy):
    (client / what).unlink()
    done = run(client, "install", "client", device="ours")
    assert done.returncode == 1 and not table(done)[label]
    assert any(line.startswith(f"{label}: ") and remedy in line for line in errors(done))


@pytest.mark.parametrize(("device", "label", "remedy"), [
    (None, "Shared memory device", "orion-virt attach DOMAIN"),
    ("without address", "Address of the device", "shut the domain down and start it again"),
    ("not ours", "Access to the device", "usermod -aG orion nobody"),
])
def test_trouble_with_the_device(client, device, label, remedy):
    done = run(client, "install", "client", device=device)
    assert done.returncode == 1 and not table(done)[label], done.stdout
    assert any(line.startswith(f"{label}: ") and remedy in line for line in errors(done)), done.stdout
    known = json.loads(run(client, "install", "client", "--json").stdout)
    assert known["ok"] is False and known["requirements"]["Orion client library"] is True


def test_a_bad_configuration_is_named(client):
    (client.parent / "etc" / "client.conf").write_text("[controller]\ncontroller_addr = :\n")
    done = run(client, "install", "client", device="ours")
    assert not table(done)["Configuration"]
    assert any("client.conf:2: [controller] controller_addr = ':' is not valid" in line for line in errors(done))


@pytest.mark.parametrize(("args", "status", "said"), [
    ([], 2, "Usage"), (["runtime"], 2, "Usage"), (["--help"], 0, "Usage"), (["runtime", "client", "--xml"], 2, "Usage"),
    (["runtime", "server"], 2, "is asked on the host")])
def test_usage(client, args, status, said):
    done = run(client, *args)
    assert done.returncode == status and said in done.stdout + done.stderr
