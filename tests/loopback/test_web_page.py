# SPDX-License-Identifier: Apache-2.0
"""The controller's web page in a real browser: who may see what, live figures of real clients, hostile names, readability."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import browser
import host
import pytest
from controllers import ON, Client, serving

from orion_virt.controller.sqlite_store import SqliteStore

MIB = 1 << 20
CLIENT = str(Path(__file__).parent / "client.py")
TOKEN = "w" * 64
HOSTILE = '"><img src=x onerror=document.title=1><script>document.title=1</script>'
WAIT = 20  # seconds; the page asks every 5


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.browsing(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(chromium):
    """Nobody is logged in; at the end nothing was refused or thrown."""
    chromium.get("about:blank")
    chromium.get_log("browser")
    yield chromium
    bad = [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE" and " 403 " not in entry["message"]
           and "ERR_CONNECTION_REFUSED" not in entry["message"]]
    chromium.execute_script("sessionStorage.clear(); localStorage.clear()")
    assert not bad


@pytest.fixture
def call(tmp_path):
    """A controller with two cards, of which a domain with a hostile name uses two vGPUs."""
    with serving(lambda: SqliteStore(tmp_path / "controller.db"), watch_token=TOKEN) as port:
        client = Client(port)
        assert client.on("127.0.0.1", domains=[{"uuid": "ann", "owner": "a" * 64}])[0] == 200
        uuid = client("/service?nvidia_vgpu=2&memory=100&domain=ann")[1].split(",")[0]
        client(f"/service/confirm/{uuid}?server=127.0.0.1", {"domain": "ann", "owner": "a" * 64, "client": HOSTILE, "process": HOSTILE, "pid": 7})
        client.report = {
            "gpus": [{"index": i, "busy_percent": 40, "used_bytes": 30 * MIB, "temperature_celsius": 51, "power_watts": 99.5} for i in (0, 1)],
            "processes": [{"allocation": uuid, "pid": 7, "comm": HOSTILE, "transport": "shm", "used_bytes": 96 * MIB, "busy_percent": 40,
                           "calls_per_second": 1234, "bytes_per_second": 2_500_000}], "names": {"ann": HOSTILE},
        }  # fmt: skip
        assert client.json("/usage/127.0.0.1", client.report) == {}
        yield client


def text(page):
    return page.execute_script("return document.body.innerText")


def sees(page, words):
    return host.wait_for(lambda: words in text(page), WAIT)


def look_now(page):
    """As when the tab comes to the front: it asks at once."""
    page.execute_script("document.dispatchEvent(new Event('visibilitychange'))")


def open_at(page, port, token=""):
    page.get(f"http://127.0.0.1:{port}/{f'#token={token}' if token else ''}")
    page.execute_script("return document.readyState")


def log_in(page, token):
    field = page.find_element("id", "token")
    field.clear()
    field.send_keys(token)
    page.find_element("css selector", "#login button").click()


def test_who_has_no_token_sees_no_figures(page, call):
    open_at(page, call.port)
    assert sees(page, "6 of 8 vGPUs are free.")  # what any guest may ask
    assert page.switch_to.active_element.get_attribute("id") == "token"
    log_in(page, "wrong")
    assert sees(page, "This token is not (any more) the controller's.")
    for secret in (HOSTILE, "1,234", "ann"):
        assert secret not in page.page_source
    log_in(page, TOKEN)
    assert sees(page, "Who uses what") and "Log in" not in text(page)
    page.refresh()  # the tab remembers
    assert sees(page, "Who uses what")
    page.find_element("id", "leave").click()
    assert sees(page, "Monitoring token") and HOSTILE not in page.page_source and "1,234" not in page.page_source
    assert page.execute_script("return sessionStorage.getItem('token')") is None


def test_hostile_names_are_words(page, call):
    open_at(page, call.port, TOKEN)
    assert sees(page, "Who uses what")
    shown = text(page)
    assert shown.count(HOSTILE) == 7, shown  # domain and process: in both tables, and said of two slots
    assert page.title == "Orion vGPU"
    assert page.execute_script("return document.querySelectorAll('main img, main script, main [onerror]').length") == 0
    # Were there a mistake in the page, the browser would still not let text become markup, nor run it.
    for attempt in ("document.body.innerHTML = '<b>x</b>'", "document.createElement('img').setAttribute('onerror', 'x')",
                    "document.createElement('script').text = 'x'"):
        assert page.execute_script(f"try {{ {attempt}; return 'done' }} catch (error) {{ return error.name }}") == "TypeError", attempt
    refused = [entry for entry in page.get_log("browser") if entry["level"] != "DEBUG"]  # each of them is said, and no more
    assert refused and all("Content Security Policy" in entry["message"] or "Trusted" in entry["message"] for entry in refused), refused


def test_it_needs_nobody_else(page, call):
    open_at(page, call.port, TOKEN)
    assert sees(page, "Who uses what")
    asked = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert {"page.js", "plot.js", "style.css", "overview"} <= {url.rsplit("/", 1)[1] for url in asked}
    assert all(url.startswith(f"http://127.0.0.1:{call.port}/") for url in asked)


def test_figures(page, call):
    call.json("/reservations/bob", {"vgpus": 3}, method="PUT")
    open_at(page, call.port, TOKEN)
    assert sees(page, "Who uses what")
    tiles = page.execute_script("return [...document.querySelectorAll('.tile')].map((tile) => tile.innerText.replace(/\\s+/g, ' '))")
    assert tiles[:4] == ["vGPUs in use 2 of 8", "Memory granted 200 MiB of 15.6 GiB", "Memory used 60 MiB of 200 MiB", "Processes 1 in 1 domain"]
    cards = page.find_elements("class name", "card")
    assert [card.find_element("tag name", "h4").text for card in cards] == ["GPU 0 Sim", "GPU 1 Sim"]
    assert "2 of 4 vGPUs" in cards[0].text and "51 °C" in cards[0].text and "99.5 W" in cards[0].text and "40%" in cards[0].text
    slots = cards[0].find_elements("class name", "slot")
    assert [slot.get_attribute("title").split(":")[1].split(",")[0].strip() for slot in slots] == [HOSTILE, HOSTILE, "free", "free"]
    rows = [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in page.find_elements("css selector", "tbody tr")]
    assert rows[0] == [HOSTILE, "2", "–", "96 MiB of 200 MiB", "40%", "1,234", "2.5 MB/s"]
    assert rows[1][:3] == ["bob", "0", "3"]
    assert rows[2][1:7] == [f"{HOSTILE} (7)", "0/0–1", "96 MiB of 200 MiB", "40%", "1,234", "2.5 MB/s"]


def test_plots_grow_without_a_reload(page, call):
    open_at(page, call.port, TOKEN)
    assert sees(page, "Who uses what")
    page.execute_script("window.kept = document.querySelector('.plot')")
    line = lambda: page.execute_script("return document.querySelector('.plot .line').getAttribute('d')")  # noqa: E731
    before = line()
    call.report["gpus"][0]["busy_percent"] = 97
    call.json("/usage/127.0.0.1", call.report)
    assert sees(page, "97%") and line().count(",") == before.count(",") + 1
    assert page.execute_script("return window.kept.isConnected"), "what is there stays, so that a selection does"
    assert "Load of GPU 0 in the last 15 minutes, now 97%" in [plot.get_attribute("aria-label") for plot in page.find_elements("class name", "plot")]


def test_a_controller_that_is_gone_and_back(page, tmp_path):
    port = None
    for life in range(2):
        make = lambda: SqliteStore(tmp_path / "controller.db")  # noqa: E731
        with serving(make, watch_token=TOKEN, port=port or 0) as port:
            if life == 0:
                open_at(page, port, TOKEN)
                assert sees(page, "No host is registered")
            else:
                look_now(page)
                assert host.wait_for(lambda: not page.find_element("id", "trouble").is_displayed(), WAIT)
                Client(port)("/heartbeat/127.0.0.1?status=on", ON)
                look_now(page)
                assert sees(page, "GPU 1")
        if life == 0:
            look_now(page)
            assert sees(page, "The controller does not answer (it cannot be reached).") and sees(page, "Not live")


def test_a_real_process_comes_and_goes(page, oriond_env):
    """From oriond's own report, with the address that `orion-virt web` prints."""
    argv = [sys.executable, "-m", "orion_virt.cli.main", "web"]
    address = subprocess.run(argv, env=oriond_env.server_env, capture_output=True, text=True, timeout=180, check=True).stdout.strip()
    page.get(address)
    assert sees(page, "No process has a vGPU now.")
    assert page.current_url == f"http://{oriond_env.controller}/", "the token is not left in the address"
    client = subprocess.Popen([sys.executable, CLIENT, "loop", "60"], env=oriond_env.env | {"ORION_GMEM": "300"}, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        assert sees(page, f"({client.pid})") and sees(page, "1 MiB of 300 MiB")
        assert oriond_env.uuid in text(page)
        assert host.wait_for(lambda: page.execute_script("return document.querySelector('tbody tr td:nth-child(6)').innerText") not in ("0", "–"), WAIT)
    finally:
        client.terminate()
        client.wait(10)
    assert sees(page, "No process has a vGPU now.")
    found = json.loads(subprocess.run([*argv, "--json"], env=oriond_env.server_env, capture_output=True, text=True, timeout=180, check=True).stdout)
    assert found["url"] == page.current_url and address.endswith(f"#token={found['token']}")


# ---- readable for everybody ----

CONTRAST = """
const number = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const light = ([r, g, b]) => 0.2126 * number(r) + 0.7152 * number(g) + 0.0722 * number(b);
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const back = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
const found = [];
let nr = 0;
for (const e of document.querySelectorAll('body *')) {
  if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility() || e.closest('.hidden, .skip')) continue;
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(back(e))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  nr++;
  if (ratio < 4.5) found.push(`${e.tagName} ${e.className} ${e.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
}
return nr < 6 ? ['too little was looked at'] : found;
"""
STRUCTURE = """
const wrong = [];
if (document.querySelectorAll('h1').length !== 1) wrong.push('not one h1');
let last = 0;
for (const h of document.querySelectorAll('h1, h2, h3, h4')) { if (!h.checkVisibility()) continue; const n = +h.tagName[1]; if (n > last + 1) wrong.push(`${h.tagName} after H${last}`); last = n; }
for (const e of document.querySelectorAll('[role=img], [role=region]')) if (!e.getAttribute('aria-label')) wrong.push(e.outerHTML.slice(0, 80));
for (const e of document.querySelectorAll('th')) if (!e.scope) wrong.push('th without scope');
for (const e of document.querySelectorAll('input')) if (!e.labels.length) wrong.push('input without label');
for (const e of document.querySelectorAll('img')) if (!e.hasAttribute('alt')) wrong.push('img without alt');
if (!document.documentElement.lang || !document.querySelector('main') || !document.querySelector('.skip')) wrong.push('landmarks');
if (document.documentElement.scrollWidth > innerWidth) wrong.push(`${document.documentElement.scrollWidth} wide in ${innerWidth}`);
return wrong;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("token", ["", TOKEN], ids=["login", "figures"])
def test_it_can_be_read(page, call, scheme, token):
    """Contrast of WCAG AA, headings in order, names for what has no text, in both schemes and on a narrow screen."""
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    try:
        open_at(page, call.port, token)
        assert sees(page, "Who uses what" if token else "Monitoring token")
        backs = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, backs[4:-1].split(","))) < 200) == (scheme == "dark")
        assert page.execute_script(CONTRAST) == []
        for width in (1280, 360):
            page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False})
            assert page.execute_script(STRUCTURE) == []
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        other = "light" if scheme == "dark" else "dark"
        while other not in page.find_element("id", "theme").text:
            page.find_element("id", "theme").click()
        assert page.execute_script("return getComputedStyle(document.body).backgroundColor") != backs
        assert page.execute_script(CONTRAST) == []
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
