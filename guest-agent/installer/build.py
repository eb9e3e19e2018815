# SPDX-License-Identifier: Apache-2.0
"""Joins install-client.in and the client's files into one self-contained script: build.py LIBDIR OUTPUT."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def payload(lib: Path) -> list[tuple[str, Path, str]]:
    """(name in the guest, file, mode); a relative name goes below the installation path."""
    return [
        ("libcuda.so.1", lib / "guest" / "libcuda.so.1", "0755"),
        ("libnvidia-ml.so.1", lib / "guest" / "libnvidia-ml.so.1", "0755"),
        ("orion-smi", lib / "guest" / "orion-smi", "0755"),
        ("orion-probe", lib / "guest" / "orion-probe", "0755"),
        ("orion-check", HERE / "orion-check", "0755"),
        ("demo/orion-demo", lib / "guest" / "orion-demo", "0755"),
        ("demo/kernels.ptx", HERE.parent / "demo" / "kernels.ptx", "0644"),
        ("nccl.conf", HERE / "nccl.conf", "0644"),
        ("/etc/udev/rules.d/60-orion-ivshmem.rules", HERE / "60-orion-ivshmem.rules", "0644"),
    ]


def build(lib: Path, output: Path) -> None:
    """Writes the installer; deterministic for the same inputs."""
    table, blob = [], b""
    for name, path, mode in payload(lib):
        data = path.read_bytes()
        table.append(f"{name}:{len(blob)}:{len(data)}:{mode}")
        blob += data
    script = (HERE / "install-client.in").read_text().replace("@TABLE@", "\n".join(table))
    for mark, name in (("@SETUP@", "setup.sh"), ("@CLIENT_CONF@", "client.conf")):
        script = script.replace(mark, (HERE / name).read_text().rstrip("\n"))
    script = script.replace("@LINE@", str(script.count("\n") + 1))
    output.write_bytes(script.encode() + blob)
    output.chmod(0o755)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
