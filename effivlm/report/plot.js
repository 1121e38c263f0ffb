"use strict";
// Draws one chart into an element, as SVG: points with lines and intervals, bars, or tiles, on two axes.
// Colours are the page's own variables, so that a change between light and dark draws nothing again.
const plot = (() => {
  const { make, lacks, visible } = report;
  const FONT = 13, MARK = 5.5, LINE = 17, NEAR = 32;
  const DASHES = ["", "9 6", "2 5", "9 4 2 4", "15 6", "15 4 2 4"];
  const ring = (count, radius, turn, inner = radius) => Array.from({ length: count }, (_, i) => [(i % 2 ? inner : radius) * Math.sin(turn + (2 * Math.PI * i) / count), -(i % 2 ? inner : radius) * Math.cos(turn + (2 * Math.PI * i) / count)]);
  const closed = corners => (x, y) => `M${corners.map(([a, b]) => `${(x + a).toFixed(1)} ${(y + b).toFixed(1)}`).join("L")}Z`;
  const rays = (count, radius) => (x, y) => ring(count, radius, 0).map(([a, b]) => `M${x.toFixed(1)} ${y.toFixed(1)}L${(x + a).toFixed(1)} ${(y + b).toFixed(1)}`).join("");
  const plus = turn => closed([[2, 6], [2, 2], [6, 2], [6, -2], [2, -2], [2, -6], [-2, -6], [-2, -2], [-6, -2], [-6, 2], [-2, 2], [-2, 6]].map(([a, b]) => [a * Math.cos(turn) - b * Math.sin(turn), a * Math.sin(turn) + b * Math.cos(turn)]));
  const circle = (x, y) => `M${(x - MARK).toFixed(1)} ${y.toFixed(1)}a${MARK} ${MARK} 0 1 0 ${2 * MARK} 0a${MARK} ${MARK} 0 1 0 ${-2 * MARK} 0Z`;
  const MARKS = [circle, closed(ring(4, 7, Math.PI / 4)), closed(ring(3, 7.5, 0)), closed(ring(4, 7.5, 0)), plus(0), closed(ring(3, 7.5, Math.PI)), plus(Math.PI / 4), closed(ring(10, 8, 0, 3.6))];
  const ASTERISK = rays(8, 7);

  const pen = make("canvas").getContext("2d");
  function measure(text) {
    if (!pen.ready) { pen.font = `${FONT}px ${getComputedStyle(document.body).fontFamily}`; pen.ready = true; }
    return pen.measureText(text).width;
  }
  function svg(name, attributes = {}, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) if (!lacks(value)) made.setAttribute(key, value);
    if (!lacks(text)) made.textContent = text;
    return made;
  }

  // Round steps of 1, 2 or 5 times a power of ten, about `most` of them.
  function steps(low, high, most) {
    const rough = (high - low) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(rough)), step = power * [1, 2, 5, 10].find(n => n * power >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return Array.from({ length: Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1 }, (_, i) => (Math.ceil(low / step - 1e-9) + i) * step).map(v => [v, Math.abs(v) < step / 2 ? "0" : v.toFixed(digits)]);
  }
  const scale = ({ log, low, high }, from, to) => { const f = log ? Math.log10 : v => v, a = f(low), b = f(high); return v => from + ((f(v) - a) / (b - a || 1)) * (to - from); };

  // What stands around the drawing: names of the rows left, heads or numbers above or below, names of lines right.
  function rooms(spec, width) {
    const { x, y, series = [] } = spec, rows = y.ticks || steps(y.low, y.high, (spec.height - 70) / 60);
    const left = 12 + Math.max(0, ...rows.map(([, text]) => measure(text))) + (y.title ? LINE + 4 : 0);
    const ends = series.filter(one => one.label).map(one => measure(one.label));
    let right = ends.length ? Math.max(...ends) + 26 : 14, tilt = 0, high = LINE;
    if (x.top && x.ticks.length) {
      const widths = x.ticks.map(([, text]) => measure(text)), longest = Math.max(...widths), column = (width - left - right) / x.ticks.length;
      tilt = longest + 6 <= column ? 0 : column > 22 ? 35 : 90;
      const turned = (tilt * Math.PI) / 180;
      if (tilt) { high = longest * Math.sin(turned) + LINE; right = Math.max(right, Math.cos(turned) * widths[widths.length - 1] - column / 2 + 12); }
    }
    const beside = (x.title ? LINE + 4 : 0) + high + 8;
    return { left, right, top: x.top ? beside : spec.above || 14, bottom: x.top ? 6 : beside, tilt, rows };
  }
  // Numbers that would touch one that stands already are left out, from the right.
  function apart(ticks, at) {
    let last = Infinity;
    return [...ticks].sort((a, b) => at(b[0]) - at(a[0])).filter(([value, text]) => { const half = measure(text) / 2 + 5, fits = at(value) + half <= last; if (fits) last = at(value) - half; return fits; });
  }
  function axes(root, spec, room, area, atX, atY) {
    const { x, y } = spec, lines = svg("g", { class: "grid" }), words = svg("g", { class: "axis" });
    const columns = x.top ? x.ticks : apart(x.ticks || steps(x.low, x.high, (area.right - area.left) / 64), atX);
    for (const [value, text] of columns) {
      const px = atX(value), edge = x.top ? area.top - 8 : area.bottom + LINE;
      if (!x.top) lines.append(svg("path", { d: `M${px} ${area.top}V${area.bottom}` }));
      words.append(svg("text", room.tilt ? { x: px, y: edge, transform: `rotate(${-room.tilt} ${px} ${edge})` } : { x: px, y: edge, "text-anchor": "middle" }, text));
    }
    for (const [value, text] of room.rows) {
      const py = atY(value);
      if (!y.ticks) lines.append(svg("path", { d: `M${area.left} ${py}H${area.right}` }));
      words.append(svg("text", { x: area.left - 8, y: py, "text-anchor": "end", "dominant-baseline": "central" }, text));
    }
    if (!x.top) lines.append(svg("path", { d: `M${area.left} ${area.top}V${area.bottom}H${area.right}` }));
    if (x.title) words.append(svg("text", { x: Math.max(measure(x.title) / 2, (area.left + area.right) / 2), y: x.top ? FONT : spec.height - 5, "text-anchor": "middle" }, x.title));
    if (y.title) words.append(svg("text", { x: -(area.top + area.bottom) / 2, y: FONT, transform: "rotate(-90)", "text-anchor": "middle" }, y.title));
    root.append(lines, words);
  }
  function rules(root, list, area, atX, atY) {
    for (const { on, at, text } of list) {
      const place = (on === "x" ? atX : atY)(at), [from, to] = on === "x" ? [area.left, area.right] : [area.top, area.bottom];
      if (place < from - 1 || place > to + 1) continue;
      root.append(svg("path", { class: "rule", d: on === "x" ? `M${place} ${area.top}V${area.bottom}` : `M${area.left} ${place}H${area.right}` }));
      if (text && on === "x") root.append(svg("text", { class: "ruled", x: Math.min(place, area.right - measure(text) / 2), y: area.top - 5, "text-anchor": "middle" }, text));
      else if (text) root.append(svg("text", { class: "ruled", x: area.left + 5, y: place - 5 }, text));
    }
  }

  const whisker = (from, to, place, upright) => (upright ? `M${place} ${from}V${to}M${place - 4} ${from}h8M${place - 4} ${to}h8` : `M${from} ${place}H${to}M${from} ${place - 4}v8M${to} ${place - 4}v8`);
  // One path for the marks of a line that look alike: thousands of marks stay a few elements.
  function points(root, one, atX, atY, group) {
    const holder = svg("g", { class: "series", style: `--tone: ${one.tone}` }), looks = new Map(), spots = [];
    const placed = one.points.map(point => ({ ...point, px: atX(point.x), py: atY(point.y) })).filter(point => Number.isFinite(point.px) && Number.isFinite(point.py));
    if (one.line && placed.length > 1) holder.append(svg("path", { class: "line", d: `M${placed.map(p => `${p.px.toFixed(1)} ${p.py.toFixed(1)}`).join("L")}`, "stroke-dasharray": DASHES[one.dash] || null }));
    const bounds = placed.filter(p => !lacks(p.low) && !lacks(p.high));
    if (one.intervals && bounds.length) holder.append(svg("path", { class: "interval", d: bounds.map(p => whisker(atY(Math.min(p.low, p.y)), atY(Math.max(p.high, p.y)), p.px, true)).join("") }));
    for (const point of placed) {
      const look = `mark${point.solid ? " solid" : ""}${point.pale ? " pale" : ""}`;
      looks.set(look, (looks.get(look) || "") + (one.mark === undefined ? ASTERISK : MARKS[one.mark])(point.px, point.py));
      spots.push({ x: point.px, y: point.py, text: point.text, group });
    }
    for (const [look, d] of looks) holder.append(svg("path", { class: look, d }));
    root.append(holder);
    return spots;
  }
  // names at the right end of their lines, pushed apart where they would touch
  function ends(root, series, area, atX, atY) {
    const found = series.filter(one => one.label && one.points.length).map(one => ({ one, y: atY(one.points.reduce((a, b) => (b.x > a.x ? b : a)).y) })).sort((a, b) => a.y - b.y);
    let last = -Infinity;
    for (const end of found) { end.y = Math.max(end.y, last + LINE); last = end.y; }
    let next = area.bottom + LINE;
    for (const end of [...found].reverse()) { end.y = Math.min(end.y, next - LINE); next = end.y; }
    for (const { one, y } of found) root.append(svg("text", { class: "end", style: `--tone: ${one.tone}`, x: area.right + 14, y, "dominant-baseline": "central" }, one.label));
  }
  function bars(root, list, atX, atY, zero) {
    const thick = Math.abs(atY(1) - atY(0)) * 0.65, spots = [];
    const whiskers = [], floors = [];
    for (const [i, bar] of list.entries()) {
      const y = atY(i), end = atX(bar.value), box = { x: Math.min(zero, end), y: y - thick / 2, width: Math.abs(end - zero), height: thick };
      root.append(svg("rect", { class: "bar", style: `--tone: ${bar.tone}`, ...box }));
      if (bar.hatched) root.append(svg("path", { class: "hatch", d: hatching(box) }));
      if (!lacks(bar.low) && !lacks(bar.high)) whiskers.push(whisker(atX(Math.min(bar.low, bar.value)), atX(Math.max(bar.high, bar.value)), y, false));
      if (!lacks(bar.floor)) floors.push(`M${atX(bar.floor)} ${y - thick / 2 - 2}v${thick + 4}`);
      spots.push({ x: end, y, text: bar.text, group: i, box: { ...box, width: Math.max(box.width, 6) } });
    }
    // on a rim of the ground's colour, so that they stand out from a bar of any colour
    for (const [look, d] of [["interval bare", whiskers.join("")], ["floor", floors.join("")]]) if (d) root.append(svg("path", { class: "rim", d }), svg("path", { class: look, d }));
    return spots;
  }
  function hatching({ x, y, width, height }) {
    const strokes = [];
    for (let at = 4; at < width + height; at += 8) { const from = Math.min(at, width), to = Math.max(0, at - height); strokes.push(`M${x + from} ${y + at - from}L${x + to} ${y + at - to}`); }
    return strokes.join("");
  }
  // A tile's colour lies between the two of the page's five that its share lies between.
  function shade(share) {
    const at = 4 * Math.min(1, Math.max(0, share)), under = Math.min(3, Math.floor(at));
    return `color-mix(in srgb, var(--h${under + 1}) ${(100 * (at - under)).toFixed(1)}%, var(--h${under}))`;
  }
  function tiles(root, list, size, atX, atY) {
    const wide = Math.abs(atX(1) - atX(0)), high = Math.abs(atY(1) - atY(0)), holder = svg("g", { class: "tiles", style: `font-size: ${size}px` });
    const spots = list.map(tile => ({ x: atX(tile.x), y: atY(tile.y), text: tile.text, group: tile.y, box: { x: atX(tile.x) - wide / 2, y: atY(tile.y) - high / 2, width: wide, height: high } }));
    for (const [i, { box }] of spots.entries()) holder.append(svg("rect", { style: `fill: ${shade(list[i].share)}`, x: box.x + 1, y: box.y + 1, width: Math.max(1, box.width - 2), height: box.height - 2 }));
    for (const [i, { x, y }] of spots.entries()) if (list[i].words) holder.append(svg("text", { x, y, "text-anchor": "middle", "dominant-baseline": "central" }, list[i].words));
    root.append(holder);
    return spots;
  }

  function draw(host, spec) {
    host.hidden = false;
    const width = Math.max(200, host.clientWidth), room = rooms(spec, width), area = { left: room.left, right: width - room.right, top: room.top, bottom: spec.height - room.bottom };
    const atX = scale(spec.x, area.left, area.right), atY = spec.y.down ? scale(spec.y, area.top, area.bottom) : scale(spec.y, area.bottom, area.top);
    const root = svg("svg", { width, height: spec.height, viewBox: `0 0 ${width} ${spec.height}`, "aria-hidden": "true" });
    axes(root, spec, room, area, atX, atY);
    if (spec.series) rules(root, spec.rules || [], area, atX, atY);
    const spots = [...(spec.series || []).flatMap((one, i) => points(root, one, atX, atY, i)), ...bars(root, spec.bars || [], atX, atY, area.left), ...(spec.tiles ? tiles(root, spec.tiles, spec.size || FONT, atX, atY) : [])];
    if (!spec.series) rules(root, spec.rules || [], area, atX, atY);
    ends(root, spec.series || [], area, atX, atY);
    host.spec = spec;
    pointing.hold(host, root, spots, spec.title, NEAR);
  }
  function clear(host) {
    host.replaceChildren();
    host.spec = null;
    host.hidden = true;
  }
  return { draw, clear, svg };
})();
