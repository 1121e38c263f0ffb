"use strict";
// The trade-off chart: a line of budgets for each method, told apart by colour, mark and dash.
const chart = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const DASHES = ["", "7 4", "2 4", "10 3 2 3", "4 2", "12 5", "1 3", "8 2 2 2"];
  const MARKS = [
    "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z", "M-4.5 -4.5H4.5V4.5H-4.5Z", "M0 -6L5.5 4.5H-5.5Z", "M0 -6.5L6.5 0L0 6.5L-6.5 0Z",
    "M-2 -6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z", "M0 6L5.5 -4.5H-5.5Z", "M-6 -3L-3 -6L0 -3L3 -6L6 -3L3 0L6 3L3 6L0 3L-3 6L-6 3L-3 0Z", "M-3 -6H3L6 0L3 6H-3L-6 0Z",
  ];
  const colour = i => `var(--c${(i + 3 * Math.floor(i / 8)) % 8})`;

  function node(name, attributes, parent) {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  }

  function mark(i, parent, x, y, filled) {
    return node("path", { d: MARKS[i % 8], transform: `translate(${x} ${y})`, fill: filled ? colour(i) : "var(--card)", stroke: colour(i), "stroke-width": 2 }, parent);
  }

  function swatch(i) {
    const svg = node("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" });
    mark(i, svg, 0, 0, true);
    return svg;
  }

  function ticks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 2.5, 5, 10].find(factor => factor * power >= raw);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
    return found;
  }

  function scale(values, from, to, log) {
    let low = Math.min(...values), high = Math.max(...values);
    const pad = log ? 1 : (high - low) * 0.06 || Math.abs(high) * 0.1 || 0.1;
    if (!log) { low -= pad; high += pad; }
    if (log && low === high) { low /= 1.5; high *= 1.5; }
    const f = log ? Math.log : v => v;
    const place = v => from + (f(v) - f(low)) / (f(high) - f(low)) * (to - from);
    return { place, low, high };
  }

  function labels(ends, low, high) {
    ends.sort((a, b) => a.y - b.y);
    let last = -Infinity;
    for (const end of ends) { end.at = Math.max(end.y, last + 15); last = end.at; }
    let limit = high;
    for (const end of [...ends].reverse()) { end.at = Math.min(end.at, limit); limit = end.at - 15; }
    return ends;
  }

  // points: {series, x, y, front, title}; names: series to label; returns nothing, fills `host`
  function draw(host, points, names, options) {
    host.replaceChildren();
    const width = Math.max(280, host.clientWidth), height = width < 560 ? 300 : 400;
    const shown = [...new Set(points.map(point => point.series))];
    const written = width >= 640 && shown.length <= 14;
    const longest = Math.max(0, ...shown.map(i => names[i].length));
    const box = { left: 46, right: width - (written ? Math.min(200, 24 + 7.4 * longest) : 14), top: 14, bottom: height - 44 };
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": options.label }, host);
    const x = scale([...points.map(point => point.x), ...options.across], box.left + 10, box.right - 10, options.log);
    const y = scale([...points.map(point => point.y), 1], box.bottom, box.top, false);
    const marked = options.log ? [...new Set(points.map(point => point.x))].sort((a, b) => a - b) : ticks(x.low, x.high, width < 560 ? 4 : 7);
    let last = -Infinity;
    for (const value of marked) {
      const at = x.place(value);
      if (at - last < 34) continue;
      last = at;
      node("text", { x: at, y: box.bottom + 19, "text-anchor": "middle" }, svg).textContent = options.format(value);
    }
    for (const value of ticks(y.low, y.high, 5)) {
      node("line", { class: "grid", x1: box.left, x2: box.right, y1: y.place(value), y2: y.place(value) }, svg);
      node("text", { x: box.left - 8, y: y.place(value) + 4, "text-anchor": "end" }, svg).textContent = String(value);
    }
    node("line", { class: "one", x1: box.left, x2: box.right, y1: y.place(1), y2: y.place(1) }, svg);
    node("text", { x: box.left + 4, y: y.place(1) - 5 }, svg).textContent = "dense";
    node("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, svg).textContent = options.title;
    const ends = [];
    for (const i of shown) {
      const mine = points.filter(point => point.series === i).sort((a, b) => a.order - b.order);
      const path = mine.map((point, k) => `${k ? "L" : "M"}${x.place(point.x).toFixed(1)} ${y.place(point.y).toFixed(1)}`).join("");
      node("path", { class: "series", d: path, stroke: colour(i), "stroke-dasharray": DASHES[Math.floor(i / 8) % 8] }, svg);
      for (const point of mine) {
        mark(i, svg, x.place(point.x), y.place(point.y), point.front);
        const hit = node("circle", { class: "hit", cx: x.place(point.x), cy: y.place(point.y), r: 12 }, svg);
        hit.addEventListener("pointerenter", event => tip(event, point.title));
        hit.addEventListener("pointerleave", () => tip(null));
      }
      const right = mine.reduce((a, b) => (b.x > a.x ? b : a));
      ends.push({ i, x: x.place(right.x), y: y.place(right.y) });
    }
    if (written) for (const end of labels(ends, box.top, box.bottom)) {
      node("line", { x1: end.x + 8, y1: end.y, x2: box.right + 4, y2: end.at, stroke: colour(end.i), "stroke-width": 1, "stroke-dasharray": "1 3" }, svg);
      node("text", { x: box.right + 8, y: end.at + 4, style: `fill: ${colour(end.i)}` }, svg).textContent = names[end.i];
    }
  }

  let bubble = null;
  function tip(event, text) {
    if (bubble) bubble.remove();
    bubble = null;
    if (!event) return;
    bubble = document.createElement("div");
    bubble.className = "tip";
    bubble.textContent = text;
    document.body.append(bubble);
    bubble.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - bubble.offsetWidth - 8))}px`;
    bubble.style.top = `${Math.max(8, event.clientY - bubble.offsetHeight - 10)}px`;
  }

  return { draw, swatch };
})();
