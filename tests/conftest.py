# SPDX-License-Identifier: Apache-2.0
"""Fixtures for everybody: a whole host side (controller, oriond, a region) on the simulated GPU."""

import host
import pytest


@pytest.fixture
def oriond_env(tmp_path):
    """A running host side with a region of 128 MiB; fails at the end if anything leaked."""
    with host.running(tmp_path) as env:
        yield env


@pytest.fixture
def make_oriond(tmp_path):
    """`make_oriond(config="...", region_mib=64)` as a context manager, for tests that need their own settings."""

    def make(**options):
        return host.running(tmp_path, **options)

    return make
