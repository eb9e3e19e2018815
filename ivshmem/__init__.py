# SPDX-License-Identifier: Apache-2.0
"""Shared memory between host and guest: the layout (C, in include/) and the doorbell's server."""
