# SPDX-License-Identifier: Apache-2.0
"""Certificates of what we serve to the local network."""

from __future__ import annotations

import ssl

from orion_virt.errors import ConfigError


def serving(key_prefix: str, cert: str, key: str) -> ssl.SSLContext | None:
    """None where no certificate is configured. ``key_prefix``: of the keys' names, for messages. Raises ConfigError."""
    if not cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{key_prefix}tls_cert {cert} with {key_prefix}tls_key {key}: {error}",
                          hint="Both are PEM files, and belong together") from error
    return context
