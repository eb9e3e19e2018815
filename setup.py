# SPDX-License-Identifier: Apache-2.0
"""Metadata lies in setup.cfg; the C parts are built by `make build` before packaging."""

from setuptools import setup

setup()
