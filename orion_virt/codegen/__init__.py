# SPDX-License-Identifier: Apache-2.0
"""Build-time generator: the driver API's specification in, C out."""
