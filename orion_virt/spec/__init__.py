# SPDX-License-Identifier: Apache-2.0
"""The driver API as data: vocabulary, types, numbers, and one line for each function."""
