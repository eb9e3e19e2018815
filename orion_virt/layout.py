# SPDX-License-Identifier: Apache-2.0
"""The region's layout as Python sees it: `ivshmem/include/orion/layout.h`, checked against it by a test."""

from __future__ import annotations

import ctypes

MAGIC = 0x31304E4F49524F55
LAYOUT_VERSION = 1
EXTENT_BYTES = 2 << 20
HEADER_BYTES = 64 << 10
SNAPSHOT_OFF = 4096
MAX_DEVICES = 32
MAX_ADDRS = 4
ADDR_BYTES = 64
BASES = (0x200000000000, 0x180000000000, 0x280000000000, 0x110000000000)
BASE_WINDOW = 64 << 30
SNAP_ATTRS = 256
SNAP_MAX_GPUS = 16
LINE = 64
RING_LINES = 4096
NR_SLOTS = 512
SLOT_BYTES = 1024
NR_CALLBACKS = 64
CALLBACK_BYTES = 64
OUTPUT_BYTES = 65536
CHANNEL_BYTES = EXTENT_BYTES

FEATURE_DOORBELL = 1  # of Header.features

CLOSED_BY_GUEST = 1
CLOSED_PROTOCOL = 2
CLOSED_WORKER = 3
CLOSED_SERVER = 4
CLOSED_LIMIT = 5
CLOSE_WORDS = {0: "open", 1: "closed by the guest", 2: "malformed stream", 3: "worker ended", 4: "closed by the server",
               5: "a kernel ran for too long"}

FEATURE_MAILBOX = 2
MAILBOX_OFF = 32768
MAIL_SLOTS = 63
MAIL_DATA = 192
OWNER_DIED = 0x40000000
MAIL_SERVER, MAIL_CONTROLLER = 1, 2

_u32, _u64, _i32 = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32
_Addr = ctypes.c_char * ADDR_BYTES


class Header(ctypes.LittleEndianStructure):
    """struct oc_header"""

    _fields_ = [
        ("magic", _u64),
        ("version", _u32),
        ("header_bytes", _u32),
        ("region_bytes", _u64),
        ("domain_uuid", ctypes.c_uint8 * 16),
        ("boot_id", ctypes.c_uint8 * 16),
        ("token", ctypes.c_uint8 * 16),
        ("generation", _u64),
        ("features", _u64),
        ("server_addr", _Addr * MAX_ADDRS),
        ("controller_addr", _Addr),
        ("snapshot_bytes", _u32),
        ("reserved", _u32),
        ("heartbeat", _u64),
        ("default_vgpus", _u32),
        ("default_memory_mib", _u32),
    ]


class SnapGpu(ctypes.LittleEndianStructure):
    """struct oc_snap_gpu"""

    _fields_ = [
        ("name", ctypes.c_char * 96),
        ("total_bytes", _u64),
        ("default_bytes", _u64),
        ("attr", _i32 * SNAP_ATTRS),
        ("attr_valid", ctypes.c_uint8 * (SNAP_ATTRS // 8)),
    ]


class SnapHead(ctypes.LittleEndianStructure):
    """struct oc_snapshot up to its array"""

    _fields_ = [("nr_gpus", _u32), ("driver_version", _u32), ("simulated", _u32), ("vgpu_count", _u32)]


class MailSlot(ctypes.LittleEndianStructure):
    """struct oc_mail_slot"""

    _fields_ = [
        ("owner", _u32),
        ("opening", _u32),
        ("seq", _u32),
        ("bytes", _u32),
        ("ack", _u32),
        ("fin", _u32),
        ("service", _u32),
        ("pad0", _u32),
        ("epoch", _u64),
        ("guest_boot", _u64),
        ("pad1", ctypes.c_uint8 * 16),
        ("opened", _u32),
        ("host_seq", _u32),
        ("host_bytes", _u32),
        ("host_ack", _u32),
        ("host_fin", _u32),
        ("pad2", ctypes.c_uint8 * 44),
        ("to_host", ctypes.c_uint8 * MAIL_DATA),
        ("to_guest", ctypes.c_uint8 * MAIL_DATA),
    ]


class Mailbox(ctypes.LittleEndianStructure):
    """struct oc_mailbox"""

    _fields_ = [
        ("epoch", _u64),
        ("pad0", ctypes.c_uint8 * 56),
        ("bell", _u32),
        ("pad1", ctypes.c_uint8 * 444),
        ("slot", MailSlot * MAIL_SLOTS),
    ]


class ChannelHead(ctypes.LittleEndianStructure):
    """The constant first line of struct oc_channel"""

    _fields_ = [
        ("magic", _u64),
        ("channel_id", _u32),
        ("ring_off", _u32),
        ("slots_off", _u32),
        ("callbacks_off", _u32),
        ("staging_off", _u32),
        ("staging_bytes", _u32),
        ("pad0", ctypes.c_uint8 * 32),
    ]


class Control(ctypes.LittleEndianStructure):
    """struct oh_control of executor.h: a datagram between daemon and worker"""

    _fields_ = [("kind", _u32), ("status", _i32), ("a", _u64), ("b", _u64), ("text", ctypes.c_char * 232)]


GRANT, RELEASE, CLOSED, STOP, USAGE, SHARE, OPEN, UNSHARE, OWN, PAGES, PAGES_FILLED, PAGES_END = range(1, 13)
TURN, TURN_WANT, TURN_DONE = range(13, 16)
PROGRESS = 20
RESUME, HAVE_CLIENT, HAVE_GROUP, HAVE_EXTENT, HAVE_PAGES, HAVE_SHARE, CLIENT, KERNEL = range(21, 29)
PART_MADE, PART_PAYS = 1, 2
PROTOCOL = 1  # OH_PROTOCOL: between daemon and worker; of the daemon's records of channels too
TOKEN_BYTES = 64

# Where the parts of a channel block lie.
RING_OFF = 4096
SLOTS_OFF = RING_OFF + RING_LINES * LINE
CALLBACKS_OFF = SLOTS_OFF + NR_SLOTS * SLOT_BYTES
OUTPUT_OFF = CALLBACKS_OFF + NR_CALLBACKS * CALLBACK_BYTES
STAGING_OFF = OUTPUT_OFF + OUTPUT_BYTES


def channel_head(channel_id: int, block_bytes: int) -> bytes:
    """First line of a channel block of `block_bytes`."""
    return bytes(
        ChannelHead(
            MAGIC, channel_id, RING_OFF, SLOTS_OFF, CALLBACKS_OFF, STAGING_OFF, block_bytes - STAGING_OFF
        )
    )
