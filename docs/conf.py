# SPDX-License-Identifier: Apache-2.0
"""Sphinx: the site out of docs/. `make docs` builds it into build/site, without a network; a warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "orion-virt"
author = "the orion-virt developers"
extensions = ["myst_parser", "generated"]
exclude_patterns = ["_ext"]
nitpicky = True
highlight_language = "text"
smartquotes = False  # what programs say is shown as they say it
myst_heading_anchors = 3

html_theme = "furo"
html_title = "orion-virt"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
