// SPDX-License-Identifier: Apache-2.0
"use strict";
// Asks the controller for the overview every few seconds and shows it; the token stays in this tab.

const EVERY_MS = 5000, PATIENCE_MS = 10000;
const COLOURS = 8;
const at = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token") || "";
let timer = 0, asked = 0;

// ---- words ----

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const UNKNOWN = "–";

function bytes(value) {
  if (value === null) return UNKNOWN;
  const mib = value / 2 ** 20;
  return mib >= 1024 ? `${NUMBER.format(mib / 1024)} GiB` : `${NUMBER.format(mib)} MiB`;
}
const count = (value) => (value === null ? UNKNOWN : NUMBER.format(value));
const percent = (value) => (value === null ? UNKNOWN : `${value}%`);
const rate = (value) => (value === null ? UNKNOWN : value >= 1e9 ? `${NUMBER.format(value / 1e9)} GB/s` : `${NUMBER.format(value / 1e6)} MB/s`);
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

function age(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

const given = new Map();  // domain -> its colour, kept while others come and go

/** Chosen anew for who is new: the one that fewest of those that are there have. */
function chooseColours(keys) {
  for (const gone of [...given.keys()].filter((key) => !keys.has(key))) given.delete(gone);
  for (const key of [...keys].filter((one) => !given.has(one)).sort()) {
    const taken = Array(COLOURS).fill(0);
    for (const number of given.values()) taken[number]++;
    given.set(key, taken.indexOf(Math.min(...taken)));
  }
}
const colour = (key) => given.get(key) ?? 0;
const keyOf = (row) => row.domain || row.client;
const called = (row) => row.domain_name || row.domain || row.client || "unknown";

// ---- parts of the page ----

function tile(label, value, detail, part = null, whole = 0) {
  return make("div", { class: "tile" }, make("dt", {}, label), make("dd", {}, make("strong", {}, value), " ", make("span", {}, detail)),
    part === null ? "" : make("dd", { class: "bar" }, meter(part, whole, `${label}: ${value} ${detail}`)));
}

function tiles(found) {
  const gpus = found.hosts.flatMap((host) => host.gpus), rows = found.allocations;
  const sum = (list, key) => list.reduce((all, row) => all + (row[key] ?? 0), 0);
  const size = sum(gpus, "total_bytes"), granted = sum(gpus, "granted_bytes");
  return make("dl", { class: "tiles" },
    tile("vGPUs in use", `${found.total - found.free}`, `of ${found.total}`, found.total - found.free, found.total),
    tile("Memory granted", bytes(granted), `of ${bytes(size)}`, granted, size),
    tile("Memory used", bytes(sum(gpus, "used_bytes")), `of ${bytes(granted)}`, sum(gpus, "used_bytes"), granted),
    tile("Processes", count(sum(rows, "processes")), `in ${plural(new Set(rows.map(keyOf)).size, "domain")}`),
    tile("Waiting", count(found.waiting), "for a vGPU"),
    tile("Calls", count(sum(rows, "calls_per_second")), "per second"),
    tile("Copies", rate(sum(rows, "bytes_per_second")), "to and from cards"));
}

function slots(gpu, mine) {
  const owner = new Map(mine.flatMap((row) => row.vgpus.filter((v) => v.card === gpu.index).map((v) => [v.slot, row])));
  return make("ul", { class: "slots", "aria-label": `vGPUs of GPU ${gpu.index}` }, Array.from({ length: gpu.slots }, (_, slot) => {
    const row = owner.get(slot);
    const words = `vGPU ${slot}: ${row ? `${called(row)}, ${row.process || row.state}` : "free"}`;
    return make("li", { class: row ? `slot c${colour(keyOf(row))}` : "slot free", title: words }, make("span", { class: "hidden" }, words));
  }));
}

function figure(kind, name, value, gpu, values, most) {
  return make("figure", {}, make("figcaption", {}, make("span", {}, name), make("strong", {}, value)),
    plot(kind, `${name} of GPU ${gpu.index} in the last 15 minutes, now ${value}`, gpu.history.seconds_ago, values, most),
    make("p", { class: "axis", "aria-hidden": "true" }, make("span", {}, "15 min ago"), make("span", {}, "now")));
}

function card(gpu, mine) {
  const sensors = [gpu.temperature_celsius === null ? "" : `${gpu.temperature_celsius} °C`, gpu.power_watts === null ? "" : `${NUMBER.format(gpu.power_watts)} W`];
  return make("article", { class: "card" },
    make("h4", {}, make("span", { class: "index" }, `GPU ${gpu.index}`), " ", gpu.name),
    make("p", { class: "sub" }, [`${gpu.used_slots} of ${plural(gpu.slots, "vGPU")}`, `${bytes(gpu.granted_bytes)} of ${bytes(gpu.total_bytes)} granted`,
      ...sensors].filter(Boolean).join(" · ")),
    slots(gpu, mine),
    gpu.history.seconds_ago.length ? [figure("load", "Load", percent(gpu.busy_percent), gpu, gpu.history.busy_percent, 100),
      figure("memory", "Memory used", `${bytes(gpu.used_bytes)} of ${bytes(gpu.total_bytes)}`, gpu, gpu.history.used_bytes, gpu.total_bytes)] : "");
}

function host(found, allocations) {
  const mine = allocations.filter((row) => row.server === found.name);
  return make("section", { class: "host" }, make("h3", {}, `Host ${found.name}`, found.reports ? "" : make("span", { class: "note" },
    "load unknown: it reports to another controller, or is of an older version")),
  make("div", { class: "cards" }, found.gpus.map((gpu) => card(gpu, mine))));
}

function table(caption, heads, rows, empty) {
  if (!rows.length) return make("section", {}, make("h2", {}, caption), make("p", { class: "empty" }, empty));
  return make("section", {}, make("h2", {}, caption), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("thead", {}, make("tr", {}, heads.map(([head, kind]) => make("th", { scope: "col", class: kind }, head)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell, n) => make(n ? "td" : "th", { scope: n ? null : "row", class: heads[n][1] }, cell))))))));
}

const mark = (key) => make("span", { class: `mark c${colour(key)}`, "aria-hidden": "true" });
const NUMERIC = "number";

function memory(row) {
  const words = `${row.used_bytes === null ? "" : `${bytes(row.used_bytes)} of `}${bytes(row.memory_bytes)}`;
  return [words, row.used_bytes === null || !row.memory_bytes ? "" : meter(row.used_bytes, row.memory_bytes, `Memory: ${words}`)];
}

function domains(found) {
  const rows = found.domains.map((row) => [
    [mark(row.uuid), make("span", { title: row.uuid || null }, row.name || row.uuid || "not known by proof (TCP)")],
    `${row.vgpus}`, row.reserved ? `${row.reserved}` : UNKNOWN, memory(row), percent(row.busy_percent), count(row.calls_per_second), rate(row.bytes_per_second)]);
  return table("Domains", [["Domain", ""], ["vGPUs", NUMERIC], ["Reserved", NUMERIC], ["Memory", "memory"], ["Load", NUMERIC], ["Calls/s", NUMERIC],
    ["Copies", NUMERIC]], rows, "No domain uses a vGPU, and nothing is reserved.");
}

/** GPU/slot of each, those that follow one another as from-to. */
function places(vgpus) {
  const runs = [];
  for (const { card, slot } of [...vgpus].sort((a, b) => a.card - b.card || a.slot - b.slot)) {
    const last = runs[runs.length - 1];
    if (last && last.card === card && last.to === slot - 1) last.to = slot; else runs.push({ card, from: slot, to: slot });
  }
  return runs.map(({ card, from, to }) => `${card}/${from}${to > from ? `–${to}` : ""}`).join(", ");
}

function processes(found) {
  const many = found.hosts.length > 1;
  const rows = found.allocations.map((row) => [
    [mark(keyOf(row)), called(row)],
    row.process ? `${row.process} (${row.processes > 1 ? `${row.processes} processes` : row.pid})` : row.state === "granted" ? "on its way" : UNKNOWN,
    `${many ? `${row.server} ` : ""}${places(row.vgpus)}`,
    memory(row), percent(row.busy_percent), count(row.calls_per_second), rate(row.bytes_per_second),
    make("time", { datetime: new Date(row.since * 1000).toISOString(), title: `since ${DATE.format(row.since * 1000)}` }, age(found.now - row.since)),
    make("code", { title: "the first characters of its id, as in orion-virt allocations" }, row.id)]);
  return table("Who uses what", [["Domain", ""], ["Process", ""], ["GPU/slot", ""], ["Memory", "memory"], ["Load", NUMERIC], ["Calls/s", NUMERIC],
    ["Copies", NUMERIC], ["For", NUMERIC], ["Allocation", ""]], rows, "No process has a vGPU now.");
}

function show(found) {
  chooseColours(new Set([...found.domains.map((row) => row.uuid), ...found.allocations.map(keyOf)].filter(Boolean)));
  const hosts = found.hosts.map((one) => host(one, found.allocations));
  patch(at("figures"), make("div", { id: "figures" }, tiles(found),
    make("section", {}, make("h2", {}, "Hosts and GPUs"), ...(hosts.length ? hosts : [make("p", { class: "empty" },
      "No host is registered: is oriond running? On the host, orion-virt doctor says what is wrong.")])),
    domains(found), processes(found)));
  at("status").textContent = `Live · ${CLOCK.format(found.now * 1000)}`;
  at("status").className = "live";
}

// ---- asking ----

function trouble(words) {
  at("trouble").textContent = words;
  at("trouble").hidden = !words;
  if (words) { at("status").textContent = "Not live"; at("status").className = "stale"; }
}

async function ask() {
  const mine = ++asked;
  clearTimeout(timer);
  if (!token || document.hidden) return;
  try {
    const answer = await fetch("/v1/overview", { headers: { Authorization: `Bearer ${token}` }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    const found = await answer.json();
    if (mine !== asked) return;
    if (answer.status === 403) return login("This token is not (any more) the controller's.");
    if (!answer.ok) throw new Error(found.error);
    sessionStorage.setItem("token", token);
    enter();
    trouble("");
    show(found);
  } catch (error) {
    if (mine !== asked) return;
    const why = error instanceof TypeError || error.name === "TimeoutError" ? "it cannot be reached" : error.message;
    trouble(`The controller does not answer (${why}). What is shown may be old; trying again.`);
  }
  timer = setTimeout(ask, EVERY_MS);
}

function enter() {
  at("login").hidden = true;
  at("wrong").textContent = at("token").value = "";
  at("figures").hidden = at("leave").hidden = false;
}

async function login(wrong = "") {
  asked++;
  clearTimeout(timer);
  token = "";
  sessionStorage.removeItem("token");
  at("figures").replaceChildren();
  at("figures").hidden = at("leave").hidden = true;
  at("status").textContent = "";
  at("status").className = "";
  trouble("");
  at("wrong").textContent = wrong;
  at("login").hidden = false;
  at("token").focus();
  try {  // what anybody may know
    const answer = await fetch("/v1/devices", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    const found = answer.ok ? await answer.json() : null;
    at("public").textContent = found ? `${found.free} of ${plural(found.total, "vGPU")} are free.` : "";
  } catch { at("public").textContent = ""; }
}

// ---- start ----

const THEMES = ["auto", "light", "dark"];
function theme(name) {
  document.documentElement.dataset.theme = name;
  at("theme").textContent = `Theme: ${name}`;
  localStorage.setItem("theme", name);
}

at("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]));
at("leave").addEventListener("click", () => login());
at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  ask();
});
document.addEventListener("visibilitychange", ask);

function begin() {
  const told = /^#token=([!-~]+)$/.exec(location.hash);
  if (told) {
    token = told[1];
    history.replaceState(null, "", location.pathname);  // not kept where others look
  }
  if (token) ask(); else login();
}

window.addEventListener("hashchange", begin);
theme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");
begin();
