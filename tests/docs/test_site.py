# SPDX-License-Identifier: Apache-2.0
"""The site is built without a warning, nothing in it leads nowhere, and nothing is fetched from elsewhere to show it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import blocks
import pytest
from lxml import html
from markdown_it import MarkdownIt

from orion_virt.cli import man
from orion_virt.codegen import load
from orion_virt.spec import nvml
from orion_virt.spec.nvml import schema

LOADED = (("img", "src"), ("script", "src"), ("link", "href"), ("source", "src"), ("iframe", "src"), ("object", "data"))
NO_FILE = {"canonical", "search", "index"}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(["make", "-s", "docs", f"PY={sys.executable}", f"SITE={to}"], cwd=blocks.ROOT, capture_output=True, text=True,
                          timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    return to


@cache
def tree(path: Path) -> html.HtmlElement:
    return html.parse(str(path)).getroot()


def pages(site: Path) -> list[Path]:
    found = sorted(site.rglob("*.html"))
    assert len(found) > len(list((blocks.ROOT / "docs").glob("*.md")))
    return found


def trouble(page: Path, link: str) -> str:
    """What is wrong with one link; "" where nothing is."""
    if re.search(r"\s", link):
        return "has white space"
    parts = urlsplit(link)
    if parts.scheme:
        return "" if parts.scheme == "https" and parts.hostname and "." in parts.hostname else "is no https address of a host"
    target = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
    if not target.is_file():
        return "leads to no file"
    anchor = unquote(parts.fragment)
    if anchor and target.suffix == ".html" and not tree(target).xpath("//*[@id=$id or @name=$id]", id=anchor):
        return "leads to no anchor"
    return ""


def test_every_link_leads_somewhere(site: Path) -> None:
    wrong = []
    for page in pages(site):
        links = [str(a) for a in tree(page).xpath("//a/@href")]
        wrong += [f"{page.name}: {link} {what}" for link in set(links) if (what := trouble(page, link))]
    assert not wrong


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """No font, script, style or picture of another machine: the site is read where there is no network."""
    wrong = []
    for page in pages(site):
        for tag, attribute in LOADED:
            for element in tree(page).iter(tag):
                link = element.get(attribute)
                if link and element.get("rel") not in NO_FILE and not link.startswith("data:"):
                    parts = urlsplit(link)
                    if parts.scheme or parts.netloc or not (page.parent / unquote(parts.path)).is_file():
                        wrong.append(f"{page.name}: {link}")
    sheets = [(path.name, url) for path in site.rglob("*.css") for url in re.findall(r"url\(['\"]?([^)'\"]+)", path.read_text())]
    assert not wrong and not [one for one in sheets if "//" in one[1]]


@pytest.mark.parametrize(("link", "what"), [
    ("index.html", ""), ("admin.html#domains", ""), ("admin.html#nothing", "leads to no anchor"), ("nothing.html", "leads to no file"),
    ("https://example.org/x", ""), ("http://x y", "has white space"), ("https://", "is no https address of a host"),
    ("ftp://example.org", "is no https address of a host"), ("#quick-start", ""),
])  # fmt: skip
def test_the_check_of_links(site: Path, link: str, what: str) -> None:
    assert trouble(site / "quickstart.html", link) == what


def test_every_page_is_in_the_tree(site: Path) -> None:
    """The sidebar of the first page has them all."""
    listed = {str(a).partition("#")[0] for a in tree(site / "index.html").xpath("//div[contains(@class, 'sidebar-tree')]//a/@href")}
    assert listed >= {f"{path.stem}.html" for path in (blocks.ROOT / "docs").glob("*.md")} - {"index.html"}


def text_of(page: Path) -> str:
    return " ".join(tree(page).text_content().split())


def test_commands_are_there(site: Path) -> None:
    shown = text_of(site / "commands.html")
    assert all(f"{name} " in shown for name in man.PROGRAMS)
    assert "orion-virt set [OPTIONS] DOMAIN" in shown and "--doorbell yes|no" in shown and "--also-at-stdin" not in shown


def test_every_function_is_in_the_coverage(site: Path) -> None:
    spec, shown = load.load(), {str(t) for t in tree(site / "coverage.html").xpath("//code//text()")}
    names = {call.name for call in spec.calls if not call.internal}
    names |= {line.name for line in nvml.LINES if not isinstance(line, schema.Field)}
    assert not names - shown
    not_carried = {str(t) for t in tree(site / "unsupported.html").xpath("//code//text()")}
    assert not {line.name for line in spec.unsupported} - not_carried


def links_of_readme() -> Iterator[str]:
    for token in MarkdownIt("commonmark").parse((blocks.ROOT / "README.md").read_text()):
        for child in token.children or ():
            if child.type == "link_open":
                yield str(child.attrs["href"])


def test_links_of_the_readme(site: Path) -> None:
    """Those of docs/ are looked up in the site, which has the same anchors."""
    found = list(links_of_readme())
    assert found
    for link in found:
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https" and parts.hostname, link
            continue
        assert (blocks.ROOT / parts.path).is_file(), link
        if parts.fragment:
            page = site / f"{Path(parts.path).stem}.html"
            assert not trouble(page, f"#{parts.fragment}"), link
