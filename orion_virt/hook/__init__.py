# SPDX-License-Identifier: Apache-2.0
"""What libvirt's qemu hook does. Standard library only: it runs with the system's python3, outside any venv."""
