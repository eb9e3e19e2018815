# SPDX-License-Identifier: Apache-2.0
"""The web page: three files without any figure in them; the figures are in /v1/overview, for who has the token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

_FOLDER = Path(__file__).resolve().parent / "web"
_FILES = {"/": ("index.html", "text/html"), "/web/page.js": ("page.js", "text/javascript"), "/web/plot.js": ("plot.js", "text/javascript"),
          "/web/style.css": ("style.css", "text/css"), "/web/icon.svg": ("icon.svg", "image/svg+xml")}
# Names of domains and processes are the guests' words: nothing but these files may run, and no text becomes markup.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def _answer(name: str, content_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    body = (_FOLDER / name).read_bytes()

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={**HEADERS, "Content-Type": f"{content_type}; charset=utf-8"})

    return handle


def add_to(app: web.Application) -> None:
    for path, (name, content_type) in _FILES.items():
        app.router.add_get(path, _answer(name, content_type))
