# SPDX-License-Identifier: Apache-2.0
"""Run in a network namespace of its own: a controller with TLS and a token at an address of the "local network"."""

from __future__ import annotations

import http.client
import ssl
import subprocess
import sys
from pathlib import Path

import controllers
import host

LAN, GATEWAY, PORT = "10.99.0.1", "10.99.1.1", 9123
TOKEN = "correct-horse-battery"


def certificate(home: Path) -> tuple[Path, Path]:
    key, cert = home / "key.pem", home / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pool", "-addext",
                    f"subjectAltName=IP:{LAN}", "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return key, cert


def get(cert: Path | None, headers: dict[str, str], path: str = "/info", ip: str = LAN) -> tuple[int, str]:
    if cert:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            ip, PORT, timeout=10, context=ssl.create_default_context(cafile=str(cert)))
    else:
        connection = http.client.HTTPConnection(ip, PORT, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def refuses_plain_http() -> bool:
    try:
        get(None, {})
    except (OSError, http.client.HTTPException):
        return True
    return False


def check_the_guard(cert: Path) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert get(cert, bearer) == (200, "data_version=0.1,api_version=0.1")
    status, text = get(cert, {})
    assert status == 403 and f"wants a token from who comes through {LAN}" in text and TOKEN not in text
    assert get(cert, {"Authorization": f"Bearer {TOKEN}x"})[0] == 403
    assert refuses_plain_http()
    assert get(None, {}, ip="127.0.0.1")[0] == 200


def check_oriond(home: Path, cert: Path) -> None:
    """It speaks TLS, and with its registration the controller serves its guests' gateway, in plain HTTP without a token."""
    made = host.Host(home / "oriond")
    made.controller, made.server = f"{LAN}:{PORT}", f"{GATEWAY}:{made.port}"
    conf = made.dir / "etc" / "server.conf"
    made.write_config = lambda: conf
    conf.write_text(f"[server]\nlisten_port = {made.port}\nbind_addr = {GATEWAY}\ndriver = simulated\n"
                    f"[controller]\ncontroller_addr = {LAN}:{PORT}\ntls_ca = {cert}\n[libvirt]\nattach = off\n")
    (made.dir / "state" / "server.credential").write_bytes((home / "state" / "server.credential").read_bytes())
    (made.dir / "state" / "server.credential").chmod(0o600)
    made.start(with_controller=False)
    try:
        assert get(None, {}, "/devices?used=true", GATEWAY) == (200, "res=nvidia_cuda,free=4")
        shown = subprocess.run([sys.executable, "-m", "orion_virt.cli.main", "allocations"], env=made.server_env,
                               capture_output=True, text=True, timeout=180)
        assert shown.returncode == 0 and "4 of 4 vGPU are free." in shown.stdout, shown.stderr
    finally:
        assert made.stop() == 0


def main() -> None:
    home = Path(sys.argv[1])
    for words in (["link", "set", "lo", "up"], ["addr", "add", f"{LAN}/32", "dev", "lo"], ["addr", "add", f"{GATEWAY}/32", "dev", "lo"]):
        subprocess.run(["ip", *words], check=True)
    key, cert = certificate(home)
    (home / "token").write_text(TOKEN)
    (home / "token").chmod(0o600)
    (home / "etc").mkdir()
    (home / "etc" / "controller.conf").write_text(
        f"[controller]\nlisten = {LAN}, 127.0.0.1\ntoken_file = {home}/token\ntls_cert = {cert}\ntls_key = {key}\n")
    process = controllers.Process(home, port=PORT, listen="")
    assert host.wait_for(process.answers)
    try:
        check_the_guard(cert)
        check_oriond(home, cert)
    finally:
        process.kill()
    print("in order")


main()
