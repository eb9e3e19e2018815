# SPDX-License-Identifier: Apache-2.0
"""A few faults of domains, at moments of a seed; `make soak` has a quarter of an hour of them."""

from __future__ import annotations

import pytest

from vm.domain_soak import soak
from vm.stage import Setup

pytestmark = [pytest.mark.vm, pytest.mark.root]
ROUNDS = 4


def test_faults_of_domains_stay_put(setup: Setup) -> None:
    done = soak(setup, 600, seed=5, rounds=ROUNDS)
    assert len(done.history) == ROUNDS and done.figures.seconds
