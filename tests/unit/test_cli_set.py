# SPDX-License-Identifier: Apache-2.0
"""`orion-virt set` and completion: what they ask and print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from control_daemon import FakeDaemon

from orion_virt.cli.main import main

ANSWER = {
    "domain": "vm1",
    "uuid": "u1",
    "settings": {"vgpus": "2"},
    "next_settings": {"vgpus": "2", "region": "64"},
    "effects": {"vgpus": "now", "region": "at the next start", "memory": "now"},
    "problems": ["something else"],
}


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    made = FakeDaemon(tmp_path)
    made.answers = {"set": ANSWER, "names": {"names": ["vm1", "vm2", "web server"]}}
    yield made
    made.close()


def test_set_asks_and_says_when(daemon: FakeDaemon) -> None:
    done = CliRunner().invoke(main, ["set", "vm1", "--vgpus", "2", "--region", "64", "--unset", "memory", "--config"])
    assert done.exit_code == 0
    assert daemon.asked == [
        {
            "cmd": "set",
            "domain": "vm1",
            "values": {"vgpus": "2", "region": "64"},
            "unset": ["memory"],
            "live": False,
            "config": True,
        }
    ]
    assert done.output.splitlines() == [
        "vm1: vgpus=2 (at the next start: vgpus=2 region=64)",
        "  vgpus=2: now",
        "  region=64: at the next start",
        "  memory unset: now",
        "  problem: something else",
    ]
    assert json.loads(CliRunner().invoke(main, ["set", "vm1", "--vgpus", "2", "--json"]).output) == ANSWER


def test_nothing_to_set_is_wrong_usage(daemon: FakeDaemon) -> None:
    done = CliRunner().invoke(main, ["set", "vm1"])
    assert done.exit_code == 2 and "orion-virt show vm1" in done.output and daemon.asked == []


def complete(words: list[str], incomplete: str) -> list[str]:
    found = ShellComplete(main, {}, "orion-virt", "_ORION_VIRT_COMPLETE").get_completions(words, incomplete)
    return [item.value for item in found]


def test_names_of_domains_are_completed(daemon: FakeDaemon) -> None:
    assert complete(["set"], "vm") == ["vm1", "vm2"]
    assert complete(["detach"], "") == ["vm1", "vm2", "web server"]
    assert complete([], "sh") == ["show"]
    assert complete(["set", "vm1", "--unset"], "re") == ["required", "region"]


def test_completion_is_silent_and_quick_without_oriond(tmp_path: Path) -> None:
    env = dict(
        os.environ,
        ORION_RUN=str(tmp_path),
        COMP_WORDS="orion-virt show ",
        COMP_CWORD="2",
        _ORION_VIRT_COMPLETE="bash_complete",
    )
    argv = [sys.executable, "-c", "import sys; sys.argv = ['orion-virt']; from orion_virt.cli.main import main; main()"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=20)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0 and "_ORION_VIRT_COMPLETE" in done.output and f"{shell}_complete" in done.output
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2


def test_no_heavy_module_is_loaded_for_a_completion() -> None:
    """Each Tab starts a Python: libvirt and lxml cost more than all the rest."""
    heavy = ("libvirt", "lxml", "asyncio")
    code = f"import sys, orion_virt.cli.main; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """vm1 is as it should be, vm2 fails."""
    if request["domain"] == "vm2":
        return {"ok": False, "error": "vm2 is not running", "hint": "start it", "exit_code": 4}
    return {"domain": request["domain"], "uuid": "u", "size_mib": 64, "config": "attached", "live": "not running"}


@pytest.mark.parametrize("command", ["attach", "detach"])
def test_several_domains(daemon: FakeDaemon, command: str) -> None:
    daemon.answers[command] = answer
    done = CliRunner().invoke(main, [command, "vm2", "vm1", "vm1"])
    assert done.exit_code == 4, "of the first that failed"
    assert "Error: vm2 is not running.\nstart it." in done.stderr and done.stdout.startswith("vm1:")
    assert [request["domain"] for request in daemon.asked] == ["vm2", "vm1"]
    found = json.loads(CliRunner().invoke(main, [command, "--all", "--json"]).stdout)["domains"]
    assert [d.get("exit_code", 0) for d in found] == [0, 4, 0] and found[1]["error"] == "vm2 is not running"
    assert CliRunner().invoke(main, [command]).exit_code == 2
    assert CliRunner().invoke(main, [command, "--all", "vm1"]).exit_code == 2


def test_in_a_real_bash(daemon: FakeDaemon, tmp_path: Path) -> None:
    program = tmp_path / "orion-virt"
    program.write_text(f"#!{sys.executable}\nfrom orion_virt.cli.main import main\nmain()\n")
    program.chmod(0o755)
    env = dict(
        os.environ,
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        PYTHONPATH=str(Path(main.callback.__code__.co_filename).parents[2]),
    )
    script = (
        'eval "$(orion-virt completion bash)"; complete -p orion-virt; COMP_WORDS=(orion-virt show vm); COMP_CWORD=2; '
        '_orion_virt_completion orion-virt; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=180)
    assert done.stdout.splitlines()[-1] == "vm1 vm2" and "_orion_virt_completion" in done.stdout, (
        done.stdout + done.stderr
    )
