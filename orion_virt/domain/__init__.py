# SPDX-License-Identifier: Apache-2.0
"""libvirt's domains: pure functions on their XML, and apart from them the calls to libvirt."""
