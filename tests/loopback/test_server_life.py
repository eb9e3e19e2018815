# SPDX-License-Identifier: Apache-2.0
"""oriond as a process: start, second start, restart, stop, orion-check's text."""

import json
import os
import signal
import socket
import subprocess
import sys

import host
import pytest


def oriond(env, *args, **variables):
    argv = [sys.executable, "-m", "orion_virt.cli.oriond", *args]
    return subprocess.run(argv, env=env.server_env | variables, capture_output=True, text=True, timeout=180)


def check(env, *args):
    argv = [sys.executable, "-m", "orion_virt.cli.check", *args]
    return subprocess.run(argv, env=env.server_env, capture_output=True, text=True, timeout=180)


def test_status_counts(oriond_env):
    status = oriond_env.status()
    assert (status["channels"], status["workers"], status["warm_workers"]) == ([], 0, 1)
    assert status["simulated"] and status["registered"] and status["regions"][0]["size_mib"] == 128


def test_commands_answer_errors_with_hints(oriond_env):
    assert oriond_env.command("dance")["error"] == "command 'dance' is unknown"
    for fields in [{"uuid": "x"}, {"uuid": oriond_env.uuid}, {"uuid": oriond_env.uuid, "size_mib": "big"}]:
        answer = oriond_env.command("region-create", **fields)
        assert not answer["ok"] and answer["error"] and answer["hint"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(oriond_env.dir / "run" / "control.sock"))
        sock.sendall(b"not json\n" + b"x" * 70000 + b"\n")
        with sock.makefile() as lines:
            assert "not a JSON object" in lines.readline()
    assert oriond_env.command("ping")["ok"] and "Traceback" not in oriond_env.output()


def test_a_second_oriond_is_one_clear_error(oriond_env):
    done = oriond(oriond_env, "--config", str(oriond_env.dir / "etc" / "server.conf"))
    assert done.returncode == 4 and done.stderr.startswith("[Error] another oriond (pid ")
    assert oriond_env.command("ping")["ok"]


def test_a_taken_port_is_one_clear_error(oriond_env, tmp_path):
    for name in ("run", "state"):
        (tmp_path / f"other-{name}").mkdir()
    other = {f"ORION_{name.upper()}": str(tmp_path / f"other-{name}") for name in ("run", "state")}
    done = oriond(oriond_env, "--config", str(oriond_env.dir / "etc" / "server.conf"), **other)
    assert done.returncode == 6 and "cannot listen on" in done.stderr and "listen_port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nvgpu_count = 0\n", "server.conf:2: [server] vgpu_count = '0' is not valid"),
        ("[server]\nenable_shm = true\nenable_rdma = true\n", "enable_shm and enable_rdma cannot both be true"),
    ],
)
def test_bad_configuration_does_not_start(oriond_env, tmp_path, text, message):
    path = tmp_path / "server.conf"
    path.write_text(text)
    done = oriond(oriond_env, "--config", str(path))
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_no_worker_user_is_said_at_start(oriond_env, tmp_path):
    path = tmp_path / "server.conf"
    path.write_text("[server]\nworker_user = nobody-at-all\ndriver = simulated\n")
    for name in ("run", "state"):
        (tmp_path / f"other-{name}").mkdir()
    other = {f"ORION_{name.upper()}": str(tmp_path / f"other-{name}") for name in ("run", "state")}
    done = oriond(oriond_env, "--config", str(path), **other)
    assert done.returncode == 2 and "there is no such user" in done.stderr


def test_restart_keeps_regions(oriond_env):
    before = oriond_env.status()["regions"][0]["generation"]
    assert oriond_env.stop() == 0
    assert oriond_env.region.exists()
    assert not (oriond_env.dir / "run" / "control.sock").exists()
    assert not host.processes_of_session(oriond_env.process.pid)
    oriond_env.start()
    assert oriond_env.status()["regions"][0]["generation"] == before


def test_killed_oriond_leaves_nothing_that_hinders_the_next(oriond_env):
    sid = oriond_env.process.pid
    os.kill(sid, signal.SIGKILL)
    oriond_env.process.wait(30)
    assert host.wait_for(lambda: not host.processes_of_session(sid)), host.processes_of_session(sid)
    oriond_env.start()
    assert oriond_env.command("ping")["ok"]


def test_check_server_text(oriond_env):
    done = check(oriond_env, "runtime", "server")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Searching NVIDIA GPU ..." and "simulated GPU" in lines[1]
    assert lines[2] == "    0 : Orion Simulated GPU"
    assert f"{'Enable SHM':<40}[Yes]" in lines and f"{'Enable RDMA':<40}[No]" in lines
    assert f"{'Binding IP Address :':<40}127.0.0.1" in lines
    assert f"{'Listening Port :':<40}{oriond_env.port}" in lines
    assert f"Orion Server can be reached through {oriond_env.server}" in lines
    assert "Orion Controller Version Infomation : data_version=0.1,api_version=0.1" in lines
    assert lines[-1].startswith("There are ") and lines[-1].endswith(" vGPU are free now.")


def test_check_without_server_names_the_address(oriond_env):
    conf = oriond_env.dir / "etc" / "client.conf"
    conf.write_text("[controller]\ncontroller_addr = 127.0.0.1:1\n")
    done = check(oriond_env, "runtime", "client")
    assert done.returncode == 1
    assert (
        "[Error] Can not reach 127.0.0.1:1. Please make sure Orion Controller is launched at the address, "
        "and the firewall is correctly set." in done.stdout
    )
    conf.unlink()
    assert json.loads(check(oriond_env, "runtime", "server", "--json").stdout)["ok"]


def log_line(env, text):
    return host.wait_for(lambda: text in (env.dir / "log" / "server.log").read_text())


def test_a_hangup_reloads_what_can_be_reloaded(oriond_env):
    path = oriond_env.dir / "etc" / "server.conf"
    before, pid = path.read_text(), oriond_env.command("ping")["pid"]
    path.write_text(before + "[server-shm]\nshm_budget = 777\n[server-log]\nfile_log_level = DEBUG\n[server]\nvgpu_count = 9\n")
    os.kill(pid, signal.SIGHUP)
    assert log_line(oriond_env, "server.conf is reloaded: [server-shm] shm_budget, [server-log]"), oriond_env.output()
    assert log_line(oriond_env, "a restart of oriond, over which its clients go on, is needed for [server] vgpu_count")
    assert (oriond_env.status()["shm_budget_mib"], oriond_env.status()["vgpu_count"]) == (777, 4)
    path.write_text("[server]\nlisten_port = x\n")
    os.kill(pid, signal.SIGHUP)
    assert log_line(oriond_env, "not reloaded, the former configuration goes on: "), oriond_env.output()
    path.unlink()
    os.kill(pid, signal.SIGHUP)
    assert log_line(oriond_env, "server.conf does not exist"), oriond_env.output()
    assert oriond_env.command("ping")["pid"] == pid and "Traceback" not in oriond_env.output()
