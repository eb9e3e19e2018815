# SPDX-License-Identifier: Apache-2.0
"""The life of an allocation: granted, confirmed, then released or expired."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from orion_virt.model.gpu import VGpu

CONFIRM_SECONDS = 30.0


class State(Enum):
    GRANTED = "granted"
    CONFIRMED = "confirmed"
    RELEASED = "released"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Allocation:
    """What the controller granted to one guest process. Times are the controller's monotonic seconds."""

    uuid: str
    vgpus: tuple[VGpu, ...]
    granted_at: float
    state: State = State.GRANTED

    @property
    def server(self) -> str:
        return self.vgpus[0].server

    @property
    def is_live(self) -> bool:
        return self.state in (State.GRANTED, State.CONFIRMED)

    def confirmed(self) -> Allocation:
        return replace(self, state=State.CONFIRMED)

    def is_due(self, now: float) -> bool:
        """True when nobody confirmed it in time."""
        return self.state is State.GRANTED and now - self.granted_at > CONFIRM_SECONDS
