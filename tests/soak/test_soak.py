# SPDX-License-Identifier: Apache-2.0
"""Three seeded minutes of faults under load; `make soak` is the hour."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from cases import KINDS
from sequence import PLUGS, events, options
from soak import soak

SECONDS = 58


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_faults_stay_put(tmp_path: Path, seed: int) -> None:
    done = soak(tmp_path, SECONDS, seed)
    assert done.nr_faults > 15, "the minute was too busy to say much"


def test_every_fault_is_drawn() -> None:
    """In the events of a minute, whatever the seed, each kind and each plug comes at least once."""
    drawn = list(islice(events(99, options(99, "simulated")), 20))
    assert {case.kind for event in drawn for case in event.cases} == set(KINDS)
    assert {event.plug for event in drawn} >= set(PLUGS)
