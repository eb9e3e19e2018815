# SPDX-License-Identifier: Apache-2.0
"""The spec files, one for each family of functions."""
