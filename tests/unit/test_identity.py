# SPDX-License-Identifier: Apache-2.0
"""Which user a domain's workers become."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from orion_virt.errors import ConfigError
from orion_virt.server import identity

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@needs_root
def test_a_domain_has_a_user_of_its_own() -> None:
    domains = [str(uuid.uuid4()) for _ in range(500)]
    users = [identity.of("auto", domain, True) for domain in domains]
    assert users == [identity.of("", domain, True) for domain in domains]
    assert len({uid for uid, _ in users}) == 500
    assert all(uid == gid and identity.STARTING < uid < 1 << 31 for uid, gid in users)


@needs_root
def test_a_user_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert identity.of("root", "a", True) == identity.of("root", "b", False) == (0, 0)
    assert identity.of("auto", "a", False) == (0, 0), "workers that are not confined are oriond's user"
    identity.check("root")
    identity.check("auto")
    with pytest.raises(ConfigError, match="no such user"):
        identity.check("nobody-at-all")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert identity.of("auto", "a", True) == (1000, os.getegid())


def test_nodes_of_a_group(tmp_path: Path) -> None:
    user = identity.STARTING + 5
    assert identity.closed_nodes(user, user, tmp_path) == []
    for name, mode in (("nvidiactl", 0o666), ("nvidia0", 0o660)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    if os.geteuid() == 0:
        os.chown(tmp_path / "nvidia0", 0, 44)
        assert identity.group_for(user, user, tmp_path) == 44
        assert identity.closed_nodes(user, 44, tmp_path) == [] and identity.group_for(1000, 1000, tmp_path) == 1000
        os.chown(tmp_path / "nvidia0", 0, 0)  # root's group is for nobody
        assert identity.group_for(user, user, tmp_path) == user
    assert identity.closed_nodes(user, user, tmp_path) == [str(tmp_path / "nvidia0")]
