# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium with a fresh profile, driven by Selenium."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--window-size=1280,1400")


def system() -> str:
    """The distribution's name in os-release."""
    with contextlib.suppress(OSError):
        if (found := re.search(r"^ID=(\S+)$", Path("/etc/os-release").read_text(), re.M)) is not None:
            return found[1].strip('"')
    return "this system"


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator:
    """The driver; skips where there is no Chromium that it could drive."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver or program.startswith("/snap/"):
        pytest.skip(f"chromium is not installed on {system()}: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, Service(driver))
    try:
        yield started
    finally:
        started.quit()
