# SPDX-License-Identifier: Apache-2.0
"""server.conf and client.conf: what is accepted, and what the refusal says."""

import pytest

from orion_virt.config import join_addr, parse_client, parse_server, split_addr
from orion_virt.errors import ConfigError

FULL = """
; a comment
[server]
    listen_port = 9961
    bind_addr = 33.31.0.1, fd00::1
    enable_shm = "true"
    enable_rdma = "false"
    enable_kvm = true   ; trailing
    vgpu_count = 8
    driver = simulated
[server-log]
    log_with_time = 0
    log_level = debug
[server-shm]
    shm_path_base = "/dev/shm/"
    shm_buffer_size = 100
    shm_budget = 512
[controller]
    controller_addr = 10.0.0.1:9124
[libvirt]
    attach = marked
    exclude = a, b
"""


def test_full_file():
    config = parse_server(FULL, "f", {})
    assert (config.listen_port, config.bind_addr, config.vgpu_count) == (9961, ("33.31.0.1", "fd00::1"), 8)
    assert config.enable_shm and not config.enable_rdma and config.driver == "simulated"
    assert config.shm_path_base == "/dev/shm" and config.shm_budget_bytes == 512 << 20
    assert config.region_bytes(False) == 128 << 20  # rounded up to a power of two
    assert not config.log.log_with_time and config.log.log_level == "DEBUG"
    assert config.libvirt_exclude == ("a", "b") and config.controller_addr == "10.0.0.1:9124"
    assert config.warnings == ()


def test_defaults():
    config = parse_server("", "f", {})
    assert (config.listen_port, config.bind_addr, config.vgpu_count, config.driver) == (9960, (), 4, "auto")
    assert config.region_bytes(True) == 1 << 30 and config.region_bytes(False) == 128 << 20


def test_unknown_key_is_a_warning_with_its_line():
    config = parse_server("[server]\nlisten_prot = 1\n[other]\nx = y\n", "/e/s.conf", {})
    assert [w.split(" is")[0] for w in config.warnings] == [
        "/e/s.conf:2: unknown key [server] listen_prot",
        "/e/s.conf:4: unknown key [other] x",
    ]


@pytest.mark.parametrize(
    ("section", "line", "accepted"),
    [
        ("server", "listen_port = 0", "1 to 65535"),
        ("server", "listen_port = ٣", "1 to 65535"),
        ("server", "vgpu_count = 101", "1 to 100"),
        ("server", "longest_kernel = 0", "off, or seconds from 1 to 86400"),
        ("server", "longest_kernel = 1.5", "off, or seconds from 1 to 86400"),
        ("server", "enable_shm = maybe", "true or false"),
        ("server", "bind_addr = host", "auto, or IP"),
        ("server", "bind_addr = 10.0.0.1, fe80::1", "no link-local IPv6"),
        ("server", "driver = amd", "auto, nvidia, simulated"),
        ("server-shm", "shm_path_base = dev", "absolute path"),
        ("server-shm", "shm_buffer_size = -1", "whole number"),
        ("controller", "controller_addr = 1.2.3.4:x", "address:port"),
        ("libvirt", "attach = some", "all, marked, off"),
        ("server-log", "log_level = loud", "DEBUG"),
    ],
)
def test_bad_value_names_file_line_key_and_accepted(section, line, accepted):
    with pytest.raises(ConfigError) as error:
        parse_server(f"[{section}]\n\n{line}\n", "/e/s.conf", {})
    text = str(error.value)
    assert text.startswith(f"/e/s.conf:3: [{section}] {line.split()[0]} = ") and accepted in text


def test_shm_and_rdma_together_names_both():
    with pytest.raises(ConfigError, match="enable_shm and enable_rdma"):
        parse_server("[server]\nenable_shm=true\nenable_rdma=true\n", "f", {})


def test_rdma_alone_is_refused():
    with pytest.raises(ConfigError, match="not available"):
        parse_server("[server]\nenable_shm=false\nenable_rdma=true\n", "f", {})


def test_garbage_line():
    with pytest.raises(ConfigError, match="f:2: 'hello' is not understood"):
        parse_server("[server]\nhello\n", "f", {})


def test_old_files_give_the_buffer_in_bytes():
    assert parse_server("[server-shm]\nshm_buffer_size=134217728\n", "f", {}).shm_buffer_bytes == 128 << 20


def test_environment_beats_the_file():
    assert parse_client("[controller]\ncontroller_addr=1.1.1.1:1\n", "f", {"ORION_CONTROLLER": "h:2"}).controller_addr == "h:2"
    with pytest.raises(ConfigError, match="ORION_CONTROLLER"):
        parse_server("", "f", {"ORION_CONTROLLER": ":"})


@pytest.mark.parametrize(
    ("text", "pair"),
    [("a:1", ("a", 1)), ("a", ("a", 7)), ("[::1]:2", ("::1", 2)), ("::1", ("::1", 7)), ("a:", None), ("", None)],
)
def test_addresses(text, pair):
    assert split_addr(text, 7) == pair


def test_join():
    assert join_addr("::1", 5) == "[::1]:5"


@pytest.mark.parametrize(("text", "seconds"), [("", 0), ("longest_kernel = off", 0), ("longest_kernel = 60", 60)])
def test_the_longest_kernel(text, seconds):
    assert parse_server(f"[server]\n{text}\n", "f").longest_kernel == seconds
