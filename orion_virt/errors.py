# SPDX-License-Identifier: Apache-2.0
"""The error tree: each error knows its exit code, its HTTP status and what to do about it."""

from __future__ import annotations

import os


class OrionError(Exception):
    """Something that a person must be told.

    ``message`` names the thing that is wrong, ``hint`` the remedy, ``code`` is a CUresult
    where the error reaches a CUDA program.
    """

    exit_code = 1
    http_status = 500
    cuda_code = 999  # CUDA_ERROR_UNKNOWN

    def __init__(self, message: str, *, hint: str = "", code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = self.cuda_code if code is None else code

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class NotFound(OrionError):
    """The named thing does not exist."""

    exit_code = 3
    http_status = 404
    cuda_code = 100  # CUDA_ERROR_NO_DEVICE


class Conflict(OrionError):
    """The thing exists already, or is in a state that forbids this."""

    exit_code = 4
    http_status = 409
    cuda_code = 100


class QuotaExceeded(OrionError):
    """A limit of memory or slots would be exceeded; ``final``: and will be, however long one waits."""

    exit_code = 5
    http_status = 409
    cuda_code = 2  # CUDA_ERROR_OUT_OF_MEMORY
    final = False


class Unavailable(OrionError):
    """Something that we need does not answer or cannot be used now."""

    exit_code = 6
    http_status = 503
    cuda_code = 100


class Forbidden(OrionError):
    """The caller may not do this."""

    exit_code = 7
    http_status = 403
    cuda_code = 800  # CUDA_ERROR_NOT_PERMITTED


class ProtocolError(OrionError):
    """The other side sent something that the protocol forbids."""

    exit_code = 8
    http_status = 400
    cuda_code = 999


class ConfigError(OrionError):
    """A bad value in a configuration file or variable."""

    exit_code = 2
    http_status = 500
    cuda_code = 100


def words_of(error: BaseException) -> str:
    """What went wrong on a connection, in few words."""
    import asyncio  # only here: a shell's completion waits for what every command loads

    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "it took too long"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
