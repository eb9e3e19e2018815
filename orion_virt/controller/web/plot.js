// SPDX-License-Identifier: Apache-2.0
"use strict";
// Elements from words alone: text never becomes markup. Plots as SVG. What changed is patched in, so that a selection stays.

const SVG = "http://www.w3.org/2000/svg";
const SPAN_SECONDS = 900, GAP_SECONDS = 20;
const WIDTH = 300, HEIGHT = 64;

/** An element with attributes and children (elements or text). */
function make(name, attributes = {}, ...children) {
  const element = ["svg", "path", "line", "g"].includes(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Makes `old` equal to `fresh`, touching what differs. */
function patch(old, fresh) {
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const before = [...old.childNodes], after = [...fresh.childNodes];
  after.forEach((child, at) => {
    const was = before[at];
    if (!was) old.append(child);
    else if (was.nodeName !== child.nodeName) was.replaceWith(child);
    else if (child.nodeType !== Node.ELEMENT_NODE) { if (was.data !== child.data) was.data = child.data; }
    else patch(was, child);
  });
  before.slice(after.length).forEach((child) => child.remove());
}

const x = (ago) => (WIDTH * (1 - ago / SPAN_SECONDS)).toFixed(1);
const y = (value, most) => (HEIGHT * (1 - Math.min(1, value / most))).toFixed(1);

/** Samples in stretches without a gap: where nobody reported there is no line. */
function stretches(seconds, values) {
  const found = [];
  let last = null;
  seconds.forEach((ago, at) => {
    if (ago > SPAN_SECONDS) return;
    if (last === null || last - ago > GAP_SECONDS) found.push([]);
    found[found.length - 1].push([ago, values[at]]);
    last = ago;
  });
  return found;
}

/** The last 15 minutes; `most` is the top of the scale. */
function plot(kind, label, seconds, values, most) {
  const parts = stretches(seconds, values);
  const points = (part) => part.map(([ago, value]) => `${x(ago)},${y(value, most)}`).join("L");
  const line = parts.map((part) => `M${points(part)}`).join("");
  const area = parts.map((part) => `M${x(part[0][0])},${HEIGHT}L${points(part)}L${x(part[part.length - 1][0])},${HEIGHT}Z`).join("");
  return make("svg", { class: `plot ${kind}`, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    [0.25, 0.5, 0.75].map((part) => make("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part })),
    make("path", { class: "area", d: area }), make("path", { class: "line", d: line }));
}

/** A bar of `part` of `whole`, with what it says for those who do not see it. */
function meter(part, whole, label) {
  const percent = whole > 0 ? Math.min(100, 100 * part / whole) : 0;
  return make("svg", { class: `meter${percent >= 90 ? " high" : ""}`, viewBox: "0 0 100 1", preserveAspectRatio: "none", role: "img", "aria-label": label },
    make("path", { class: "rest", d: "M0,0H100V1H0Z" }), make("path", { class: "part", d: `M0,0H${percent.toFixed(2)}V1H0Z` }));
}
