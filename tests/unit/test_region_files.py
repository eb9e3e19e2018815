# SPDX-License-Identifier: Apache-2.0
"""Regions: safe files, headers without mapping, extents, budget."""

import os
import stat
import subprocess
import uuid
from shutil import which

import pytest

from orion_virt import layout
from orion_virt.config import ServerConfig
from orion_virt.errors import Conflict, NotFound, QuotaExceeded, Unavailable
from orion_virt.region import header
from orion_virt.region.extents import Extents
from orion_virt.region.regions import Regions

MIB = 1 << 20
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def regions(tmp_path):
    found = Regions(ServerConfig(shm_path_base=str(tmp_path), shm_budget_bytes=64 * MIB), b"b" * 16, b"snap")
    yield found
    found.close()


@pytest.fixture
def domain():
    return str(uuid.uuid4())


def test_create_has_mode_size_and_no_header_yet(regions, domain):
    region = regions.create(domain, 8 * MIB)
    info = os.stat(region.path)
    assert stat.S_IMODE(info.st_mode) == 0o660 and info.st_size == 8 * MIB
    assert header.read(region.fd) is None and region.extents.nr == 3


def test_real_dev_shm_through_posix_ipc(domain):
    regions = Regions(ServerConfig(), b"b" * 16, b"")
    region = regions.create(domain, 4 * MIB)
    try:
        assert str(region.path) == f"/dev/shm/orion-{domain}"
        assert stat.S_IMODE(os.stat(region.path).st_mode) == 0o660
        regions.forget(domain)
        assert regions.adopt(domain).size_bytes == 4 * MIB
    finally:
        regions.remove(domain)
    assert not region.path.exists()


def test_header_round_trip_and_new_generation(regions, domain):
    region = regions.create(domain, 4 * MIB)
    regions.prepare_header(domain, ["1.2.3.4:9960", "[::1]:9960"], "1.2.3.4:9123")
    found = header.read(region.fd)
    assert bytes(found.domain_uuid) == uuid.UUID(domain).bytes and found.region_bytes == 4 * MIB
    assert found.server_addr[1].value == b"[::1]:9960" and found.controller_addr == b"1.2.3.4:9123"
    assert os.pread(region.fd, 4, layout.SNAPSHOT_OFF) == b"snap" and found.snapshot_bytes == 4
    before = region.identity
    regions.prepare_header(domain, [], "")
    assert region.identity == before
    regions.new_generation(domain)
    assert region.identity.token != before.token and region.identity.generation != before.generation
    assert header.identity(header.read(region.fd)) == region.identity


def test_adopt_keeps_identity_of_the_same_domain(regions, domain, tmp_path):
    regions.create(domain, 4 * MIB)
    regions.prepare_header(domain, [], "")
    identity = regions.get(domain).identity
    regions.forget(domain)
    assert regions.adopt(domain).identity == identity
    other = str(uuid.uuid4())
    os.link(tmp_path / f"orion-{domain}", tmp_path / f"orion-{other}")
    with pytest.raises(Conflict, match="hard links"):
        regions.adopt(other)


def test_planted_symlink_is_neither_followed_nor_replaced(regions, domain, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("x")
    (tmp_path / f"orion-{domain}").symlink_to(victim)
    with pytest.raises(Conflict, match="exists already"):
        regions.create(domain, 4 * MIB)
    with pytest.raises(Conflict, match="symbolic link"):
        regions.adopt(domain)
    assert victim.read_text() == "x"


def test_unsafe_files_are_refused(regions, domain, tmp_path):
    path = tmp_path / f"orion-{domain}"
    path.write_bytes(bytes(3 * MIB))
    path.chmod(0o600)
    with pytest.raises(Conflict, match="power of two"):
        regions.adopt(domain)
    os.truncate(path, 4 * MIB)
    path.chmod(0o666)
    with pytest.raises(Conflict, match="everybody"):
        regions.adopt(domain)
    path.unlink()
    path.mkdir()
    with pytest.raises(Conflict):
        regions.adopt(domain)


def test_missing_and_bad_names(regions, domain):
    with pytest.raises(NotFound):
        regions.adopt(domain)
    with pytest.raises(NotFound, match="not a domain's UUID"):
        regions.adopt("../../etc/passwd")
    with pytest.raises(Conflict, match="no size"):
        regions.create(domain, 3 * MIB)


def test_budget(regions, domain):
    regions.create(domain, 32 * MIB)
    with pytest.raises(QuotaExceeded, match="32 of 64 MiB"):
        regions.create(str(uuid.uuid4()), 64 * MIB)
    regions.remove(domain)
    regions.create(domain, 64 * MIB)


def test_replaced_file_is_noticed(regions, domain):
    region = regions.create(domain, 4 * MIB)
    region.path.unlink()
    assert not region.is_current()
    with pytest.raises(NotFound):
        regions.adopt(domain)


def test_no_room_is_one_clear_error(regions, domain, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Unavailable, match="no room for 4 MiB.*No space left"):
        regions.create(domain, 8 * MIB)
    monkeypatch.undo()
    regions.create(domain, 8 * MIB)  # nothing was left behind


def test_restart_takes_up_known_regions(tmp_path, domain):
    config = ServerConfig(shm_path_base=str(tmp_path), shm_budget_bytes=64 * MIB)
    first = Regions(config, b"1" * 16, b"", tmp_path / "regions.json")
    first.create(domain, 4 * MIB)
    first.prepare_header(domain, ["1.1.1.1:1"], "")
    first.close()
    second = Regions(config, b"2" * 16, b"", tmp_path / "regions.json")
    second.restore()
    found = header.read(second.get(domain).fd)
    assert bytes(found.boot_id) == b"2" * 16 and found.server_addr[0].value == b"1.1.1.1:1"
    second.close()


def test_extents_first_fit():
    extents = Extents(16 * MIB)
    a, b = extents.take(1), extents.take(4 * MIB)
    assert a == (2 * MIB, 2 * MIB) and b == (4 * MIB, 4 * MIB)
    extents.give_back(*a)
    assert extents.take(4 * MIB) == (8 * MIB, 4 * MIB)
    assert extents.take(2 * MIB) == a and extents.take(8 * MIB) is None and extents.take(0) is None
    extents.give_back(6 * MIB, 2 * MIB)  # part of a grant
    for bad in [(6 * MIB, 2 * MIB), (3 * MIB, 2 * MIB), (0, 2 * MIB), (14 * MIB, 4 * MIB), (2 * MIB, 0)]:
        with pytest.raises(ValueError):
            extents.give_back(*bad)


def test_region_of_one_extent():
    extents = Extents(2 * MIB)
    assert extents.take(1) == (layout.HEADER_BYTES, 2 * MIB - layout.HEADER_BYTES) and extents.take(1) is None


def _c_values(tmp_path, names):
    lines = "".join(f'printf("%s %llu\\n", "{n.replace(chr(34), "")}", (unsigned long long)({n}));' for n in names)
    source = tmp_path / "l.c"
    source.write_text(f"#include <stdio.h>\n#include <orion/layout.h>\nint main(void){{{lines}return 0;}}")
    include = os.path.join(ROOT, "ivshmem", "include")
    subprocess.run(["cc", "-I", include, "-o", str(tmp_path / "l"), str(source)], check=True, timeout=180)
    out = subprocess.run([str(tmp_path / "l")], capture_output=True, text=True, check=True, timeout=10).stdout
    return [int(line.rsplit(" ", 1)[1]) for line in out.splitlines()]


@pytest.mark.skipif(which("cc") is None, reason="no C compiler")
def test_python_layout_is_the_c_layout(tmp_path):
    structs = {"oc_header": layout.Header, "oc_snap_gpu": layout.SnapGpu, "oc_snapshot": layout.SnapHead}
    structs |= {"oc_channel": layout.ChannelHead, "oc_mailbox": layout.Mailbox, "oc_mail_slot": layout.MailSlot}
    names, expected = [], []
    for c_name, cls in structs.items():
        for field in cls._fields_:
            names.append(f"offsetof(struct {c_name}, {field[0]})")
            expected.append(getattr(cls, field[0]).offset)
    sized = {"oc_header", "oc_snap_gpu", "oc_mailbox", "oc_mail_slot"}
    for c_name, cls in [(c_name, structs[c_name]) for c_name in sized]:
        names.append(f"sizeof(struct {c_name})")
        expected.append(layout.ctypes.sizeof(cls))
    names += ["sizeof(struct oc_callback)", "sizeof(struct oc_snapshot)"]
    expected.append(layout.CALLBACK_BYTES)
    expected.append(layout.ctypes.sizeof(layout.SnapHead) + layout.SNAP_MAX_GPUS * layout.ctypes.sizeof(layout.SnapGpu))
    for constant in """MAGIC LAYOUT_VERSION EXTENT_BYTES HEADER_BYTES SNAPSHOT_OFF MAX_DEVICES MAX_ADDRS ADDR_BYTES
        BASE_WINDOW SNAP_ATTRS SNAP_MAX_GPUS LINE RING_LINES NR_SLOTS SLOT_BYTES NR_CALLBACKS CHANNEL_BYTES
        RING_OFF SLOTS_OFF CALLBACKS_OFF OUTPUT_OFF OUTPUT_BYTES STAGING_OFF
        FEATURE_MAILBOX MAILBOX_OFF MAIL_SLOTS MAIL_DATA OWNER_DIED MAIL_SERVER MAIL_CONTROLLER
        CLOSED_BY_GUEST CLOSED_PROTOCOL CLOSED_WORKER CLOSED_SERVER""".split():
        names.append(f"OC_{constant}")
        expected.append(getattr(layout, constant))
    names += [f"((const unsigned long long[])OC_BASES)[{i}]" for i in range(4)]
    expected += layout.BASES
    assert dict(zip(names, _c_values(tmp_path, names), strict=True)) == dict(zip(names, expected, strict=True))


def test_parts_of_a_channel_do_not_overlap():
    assert layout.STAGING_OFF % 4096 == 0
    assert layout.STAGING_OFF < layout.EXTENT_BYTES - layout.HEADER_BYTES
    assert len(layout.channel_head(1, layout.CHANNEL_BYTES)) == 64
