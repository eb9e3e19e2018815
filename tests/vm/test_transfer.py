# SPDX-License-Identifier: Apache-2.0
"""`orion-virt save` of a real domain whose guest computes: refused, forced, and what the program sees after the restore."""

from __future__ import annotations

import pytest
from vm.harness import Guest
from vm.stage import Setup, eventually
from vm.test_cuda import WHERE, channels, guest, program  # noqa: F401: fixtures

pytestmark = [pytest.mark.vm, pytest.mark.root]

WATCHER = '''
import sys, time
exec(open("/opt/orion/program.py").read().replace("time.sleep(float(sys.argv[1]))", ""))
seen = None
for _ in range(3000):
    status = cuda.cuCtxSynchronize()
    if status != seen:
        print("status", status, flush=True)
        seen = status
    time.sleep(0.1)
'''


def test_save_ends_what_computes_only_by_force(setup: Setup, guest: Guest) -> None:  # noqa: F811
    guest.run(f"cat > watcher.py <<'E'\n{WATCHER}\nE\npython3 watcher.py >/tmp/watched 2>&1 &")
    eventually(lambda: "status 0" in guest.run("cat /tmp/watched").output, "the program does not come up", 30)
    refused = setup.oriond.command("save", "cuda")
    assert refused.returncode == 4 and "1 CUDA process of cuda would end: python3 (pid" in refused.stderr, refused.stderr
    assert len(channels(setup)) == 1, "a refusal ends nothing"
    done = setup.oriond.command("save", "cuda", "--force")
    assert done.returncode == 0 and "ended: python3" in done.stdout, done.stdout + done.stderr
    eventually(lambda: setup.regions() == [] and channels(setup) == [], "the region's file or a channel is left")
    guest.close()
    setup.libvirt.virsh("start", "cuda")
    eventually(lambda: bool(setup.oriond.domain("cuda").get("server_addrs")), "the restored domain has no header")
    guest.reconnect()
    eventually(lambda: "status 46" in guest.run("cat /tmp/watched").output, "the program does not learn of its end", 30)
    output = guest.run(f"python3 {WHERE}/program.py 0").output
    assert "same" in output, f"a new program does not work: {output}"
