# SPDX-License-Identifier: Apache-2.0
"""A worker that does what its client's connection tells it: a stand-in for faults that a real one never shows."""

import array
import json
import os
import select
import socket
import struct
import sys
import time

CONTROL = struct.Struct("<IiQQ232s")
GRANT, RELEASE, CLOSED, STOP, USAGE = 1, 2, 3, 4, 5


def start(control):
    message, ancillary, _, _ = control.recvmsg(1 << 16, socket.CMSG_SPACE(12))
    if not message:
        sys.exit(0)
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data)
    return json.loads(message), list(fds)


def obey(words, control, conn):
    if words[0] == "crash":
        os.abort()
    elif words[0] == "hang":
        conn.sendall(b"hanging\n")
        time.sleep(1000)
    elif words[0] == "exit":
        sys.exit(int(words[1]))
    elif words[0] == "short":
        control.send(b"x")
    elif words[0] == "pass":  # a descriptor along with it
        rights = array.array("i", [conn.fileno()])
        message = CONTROL.pack(int(words[1]), 0, int(words[2]), 0, b"")
        control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    elif words[0] in ("send", "ask"):
        kind, a, b = (int(word, 0) for word in words[1:])
        control.send(CONTROL.pack(kind, 0, a, b, b""))
        if words[0] == "ask":
            return
    conn.sendall(b"done\n")


def main():
    control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
    message, fds = start(control)
    conn = socket.socket(fileno=fds[0])
    conn.sendall(json.dumps(message | {"fds": len(fds), "seen": dict(os.environ)}).encode() + b"\n")
    while True:
        ready, _, _ = select.select([control, conn], [], [])
        if control in ready:
            raw = control.recv(1000)
            if not raw:
                sys.exit(4)
            kind, status, a, b, _ = CONTROL.unpack(raw)
            if kind == STOP:
                control.send(CONTROL.pack(CLOSED, 0, a, 0, b"told to"))
                sys.exit(4)
            conn.sendall(f"{kind} {status} {a} {b}\n".encode())
        if conn in ready:
            raw = conn.recv(1000)
            if not raw:
                control.send(CONTROL.pack(CLOSED, 0, 1, 0, b""))
                sys.exit(1)
            obey(raw.decode().split(), control, conn)


if __name__ == "__main__":
    main()
