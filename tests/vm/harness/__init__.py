# SPDX-License-Identifier: Apache-2.0
"""A private libvirtd and guests with a stock kernel, for the VM tests and the demonstration."""

from .cache import guest_cache
from .guest import Guest, GuestConfig, Result, Share
from .host import PrivateHost
from .libvirtd import PrivateLibvirt
from .oriond import Oriond

__all__ = ["Guest", "GuestConfig", "Oriond", "PrivateHost", "PrivateLibvirt", "Result", "Share", "guest_cache"]
