"use strict";
// What the charts show: trade-off, heat map, times. Lines are told apart by mark, dash and words, not by colour alone.
const charts = (() => {
  const { data, cells, rows, methodOf, keepOf, sizeOf, isDense, kindOf, settingWith, kinds, methods, keeps, by, lacks, make, num, keepText, budgetText, visible, options, button, choice, inChoice, ordered, refusals } = report;
  const GLYPHS = ["●", "■", "▲", "◆", "✚", "▼", "✖", "★"];
  const ACROSS = { keep: "keep, asked", kv: "cache bytes / dense", ttft: "TTFT speed-up", decode: "decode speed-up", batch: "decode speed-up at a batch" };
  const AXES = { weights: "weights that stay, asked", "weight bits": "bits of a weight, asked" };
  const UP = { quality: "quality kept (OP)", loyalty: "same as dense (OL)" };
  const BARS = 40;
  const hidden = new Set(), shown = { intervals: false, published: true };
  const colour = i => `var(--c${(i + 3 * Math.floor(i / 8)) % 8})`;
  const brief = (text, length = 24) => visible(text.length > length ? `${text.slice(0, length - 1)}…` : text);
  const lines = (...texts) => texts.filter(Boolean).map(visible).join("\n");

  const hosts = id => [by(id), ...document.querySelectorAll(`[data-of="${id}"]`)];
  function clear(id) { hosts(id).forEach(plot.clear); }
  // One chart for each thing that budgets are shares of: 0.1 of the tokens is no 0.1 of the cache. `draw` gets a host's id and what to show.
  function panels(id, found, drawn) {
    const parts = [...kinds, ""].map(kind => [kind, found.filter(one => one.kind === kind)]).filter(([, mine]) => mine.length);
    document.querySelectorAll(`[data-of="${id}"]`).forEach(plot.clear);
    parts.forEach((_, i) => { if (i && !by(`${id}-${i}`)) by(id).parentElement.append(make("div", null, { id: `${id}-${i}`, class: "chart", role: "group", "data-of": id })); });
    for (const i of parts.keys()) by(i ? `${id}-${i}` : id).hidden = false; // before one is measured, all stand
    parts.forEach(([kind, mine], i) => drawn(i ? `${id}-${i}` : id, kind, mine));
  }
  const doubtOf = (entry, letter) => (entry[`${letter}doubt`] || []).map(i => data.remarks[i]);

  function points() {
    const at = choice(), x = by("chart-x").value, y = by("chart-y").value;
    if (at.model < 0 && at.task >= 0) return [];
    const found = at.task < 0 ? rows.filter(row => row.model === at.model) : cells.filter(cell => inChoice(cell, at) && !isDense(cell.setting));
    return found.map(one => {
      const kv = at.task < 0 ? one.kv : one.kv_bytes_dense ? one.kv_bytes / one.kv_bytes_dense : null;
      const across = { keep: sizeOf(one.setting), kv, ttft: one.ttft, decode: one.decode, batch: one.batch }[x];
      const [up, low, high] = y === "quality" ? (at.task < 0 ? [one.op, one.low, one.high] : [one.ratio, one.rlow, one.rhigh]) : [at.task < 0 ? one.ol : one.same, one.ollow, one.olhigh];
      const name = methodOf(one.setting), keep = data.ranks[one.setting];
      const letter = { ttft: "t", decode: "d", batch: "b" }[x], doubt = letter && at.task >= 0 ? doubtOf(one, letter) : [];
      return { series: methods.indexOf(name), kind: x === "keep" ? kindOf(one.setting) : "", doubt: doubt.length > 0, x: across, y: up, low, high, keep, text: lines(`${name}, ${budgetText(keepOf(one.setting))}`, `${UP[y]} ${num(up)}${report.range(low, high)}`, `${ACROSS[x]} ${num(across)}`, x !== "kv" && !lacks(kv) && `cache ${num(kv)} of dense`, ...doubt.map(reason => `⚠ untrusted: ${reason}`)) };
    }).filter(point => !lacks(point.x) && !lacks(point.y));
  }
  function markFront(list, smaller) {
    let best = -Infinity;
    for (const point of list.filter(point => !point.doubt).sort((a, b) => (smaller ? a.x - b.x : b.x - a.x) || b.y - a.y)) { point.front = point.y > best; best = Math.max(best, point.y); }
  }
  function toggles(all, published) {
    const legend = by("legend"), back = document.activeElement && legend.contains(document.activeElement) ? [...legend.children].indexOf(document.activeElement) : -1;
    legend.replaceChildren();
    const add = (content, on, flip) => { const made = button(null, () => { flip(); tradeoff(); }, { "aria-pressed": String(on) }); made.append(...content); legend.append(made); };
    for (const i of [...new Set(all.map(point => point.series))].sort((a, b) => a - b)) {
      const glyph = make("span", GLYPHS[i % 8], { "aria-hidden": "true", class: "glyph" });
      glyph.style.color = colour(i);
      add([glyph, make("span", visible(methods[i]))], !hidden.has(i), () => (hidden.has(i) ? hidden.delete(i) : hidden.add(i)));
    }
    if (all.some(point => !lacks(point.low))) add([make("span", "I", { "aria-hidden": "true", class: "glyph" }), make("span", "95 % intervals")], shown.intervals, () => { shown.intervals = !shown.intervals; });
    if (published.length) add([make("span", "✳", { "aria-hidden": "true", class: "glyph" }), make("span", "published values")], shown.published, () => { shown.published = !shown.published; });
    if (back >= 0 && legend.children[back]) legend.children[back].focus();
  }
  // printed OP, or for one task the printed score / the printed score of dense
  function publishedPoints() {
    const at = choice();
    if (by("chart-x").value !== "keep" || by("chart-y").value !== "quality" || at.model < 0) return [];
    const kinded = list => list.map(one => ({ ...one, at: settingWith(one.method, one.keep) })).filter(one => one.at >= 0).map(one => ({ ...one, kind: kindOf(one.at), x: sizeOf(one.at) }));
    const mine = data.published.filter(one => one.model === data.models[at.model] && one.method !== "dense" && !hidden.has(methods.indexOf(one.method)));
    if (at.task < 0) return kinded(mine.filter(one => one.of === "op"));
    const score = data.published.filter(one => one.of === "score" && one.model === data.models[at.model] && one.task === data.tasks[at.task]), dense = score.find(one => one.method === "dense");
    return dense && dense.value ? kinded(mine.filter(one => score.includes(one))).map(one => ({ ...one, of: "score / dense score", value: one.value / dense.value })) : [];
  }
  function tradeoff() {
    const x = by("chart-x").value, y = by("chart-y").value, all = points(), list = all.filter(point => !hidden.has(point.series)), published = publishedPoints();
    toggles(all, published);
    const refused = refusals(y === "quality" ? "op" : "ol");
    by("chart-lead").textContent = list.length ? `Filled marks are on the Pareto front: no other setting shown${x === "keep" && kinds.length > 1 ? " for the same kind of budget" : ""} is better both ways. The dashed line is dense. Point at a mark for its numbers; the results table below holds them all.${list.some(point => point.doubt) ? " Pale marks are untrusted timings." : ""}` : all.length ? "All methods are switched off." : refused.length ? `Refused: ${refused[0].reason}; select ${refused[0].select}` : choice().model < 0 ? "Choose one model to see this chart." : `No setting has both ${UP[y]} and ${ACROSS[x]} for this choice.`;
    if (!list.length) { clear("chart"); return; }
    const ys = [...list.flatMap(p => (shown.intervals ? [p.y, p.low, p.high] : [p.y])), ...(shown.published ? published.map(p => p.value) : []), 1].filter(v => !lacks(v));
    panels("chart", list, (id, kind, mine) => panel(id, kind, mine, shown.published ? published.filter(one => one.kind === kind) : [], [Math.min(...ys), Math.max(...ys)]));
  }
  function panel(id, kind, list, published, [low, high]) {
    const x = by("chart-x").value, y = by("chart-y").value;
    const smaller = x === "keep" || x === "kv", wide = by(id).clientWidth >= 480, height = wide ? 440 : 360;
    markFront(list, smaller);
    const series = [...new Set(list.map(point => point.series))].sort((a, b) => a - b).map(i => [i, list.filter(point => point.series === i).sort((a, b) => a.keep - b.keep)]);
    const pad = (high - low) * 0.07 || 0.1, labelled = wide && series.length <= 14;
    const drawn = series.map(([i, mine]) => ({
      name: methods[i], label: labelled ? `${GLYPHS[i % 8]} ${brief(methods[i])}` : "", tone: colour(i), mark: i % 8, dash: Math.floor(i / 8) % 6, line: true, intervals: shown.intervals,
      points: mine.map(p => ({ ...p, solid: p.front, pale: p.doubt })),
    }));
    if (published.length) drawn.push({ name: "published", tone: "var(--text)", points: published.map(p => ({ x: p.x, y: p.value, text: lines(`published: ${p.method}, ${budgetText(p.keep)}`, `${p.of} ${num(p.value)}`, p.source) })) });
    const xs = list.map(p => p.x), log = x === "keep" || (x === "kv" && Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) > 20);
    const ticks = log ? thinned([...new Set(xs)].sort((a, b) => a - b), wide ? 12 : 6).map(v => [v, keepText(v)]) : null;
    const all = [...xs, ...published.map(p => p.x), ...(smaller ? [] : [1])], title = ((x === "keep" && AXES[kind]) || ACROSS[x] + (kind ? `, of ${visible(kind)}` : "")) + (log ? " (log scale)" : "");
    plot.draw(by(id), {
      title: `${UP[y]} against ${ACROSS[x]}${kind ? ` of ${kind}` : ""}; the numbers stand in the results table`, height,
      x: { title, log, ticks, ...padded(Math.min(...all), Math.max(...all), log) }, y: { title: UP[y], low: low - pad, high: high + pad },
      rules: [{ on: "y", at: 1, text: "dense" }, ...(smaller ? [] : [{ on: "x", at: 1 }])], series: drawn,
    });
  }
  // the ends of an axis, a little beyond what stands on it; on a logarithmic one by a factor
  function padded(low, high, log) {
    if (log) { const edge = Math.max(1.05, (high / low) ** 0.06); return { low: low / edge, high: high * edge }; }
    const edge = (high - low) * 0.06 || Math.abs(high) * 0.1 || 0.1;
    return { low: low - edge, high: high + edge };
  }
  const thinned = (values, most) => { const step = Math.ceil(values.length / most); return values.filter((_, i) => (values.length - 1 - i) % step === 0); };

  // Methods down; budgets across, or, for one budget, tasks across.
  function heat() {
    const at = choice(), picked = by("heat-keep").value, keep = picked === "" ? null : keeps[Number(picked)];
    by("heat-keep").disabled = at.task >= 0 || data.tasks.length < 2;
    const byTask = keep !== null && !by("heat-keep").disabled;
    const known = new Map(), heads = byTask ? data.tasks.map((name, i) => [i, name]) : keeps.map(k => [k, budgetText(k)]);
    const put = (setting, head, value) => { if (!lacks(value)) known.set(`${kindOf(setting)}\n${methodOf(setting)}\n${head}`, value); };
    if (at.model >= 0 && byTask) for (const cell of cells) { if (cell.model === at.model && !isDense(cell.setting) && keepOf(cell.setting) === keep) put(cell.setting, cell.task, cell.ratio); }
    else if (at.model >= 0 && at.task < 0) for (const row of rows) { if (row.model === at.model) put(row.setting, keepOf(row.setting), row.op); }
    else if (at.model >= 0) for (const cell of cells) { if (inChoice(cell, at) && !isDense(cell.setting)) put(cell.setting, keepOf(cell.setting), cell.ratio); }
    const refused = at.task < 0 && !byTask ? refusals("op") : [];
    by("heat-lead").textContent = known.size ? `${byTask ? `Score / dense score at ${budgetText(keep)}, by task` : at.task < 0 ? "OP over tasks" : `Score / dense score on ${data.tasks[at.task]}`}; dense is 1. The stronger the colour, the nearer to dense; an empty place was not measured.` : refused.length ? `Refused: ${refused[0].reason}; select ${refused[0].select}` : at.model < 0 ? "Choose one model to see its budgets side by side." : "No score could be set against dense for this choice.";
    if (!known.size) { clear("heat-chart"); return; }
    const found = methods.flatMap(name => [...kinds, ""].filter(kind => heads.some(([head]) => known.has(`${kind}\n${name}\n${head}`))).map(kind => ({ name, kind })));
    panels("heat-chart", found, (id, kind, mine) => heatPanel(id, kind, mine.map(one => one.name), heads, known, byTask));
  }
  function heatPanel(id, kind, names, heads, known, byTask) {
    const columns = heads.filter(([head]) => names.some(name => known.has(`${kind}\n${name}\n${head}`)));
    const narrow = by(id).clientWidth < 52 * columns.length + 150, digits = narrow ? 2 : 3;
    const found = names.flatMap((name, y) => columns.map(([head, text], x) => ({ x, y, share: known.get(`${kind}\n${name}\n${head}`), name, column: text })).filter(tile => !lacks(tile.share)));
    plot.draw(by(id), {
      title: `Heat map of quality kept${kind ? `, budgets of ${kind}` : ""}; the numbers stand in the results table`, height: 64 + 32 * names.length + (byTask ? 50 : 0) + (kind ? 26 : 0), size: columns.length > 14 || narrow ? 11 : 13,
      x: { title: kind ? `of ${visible(kind)}` : "", top: true, low: -0.5, high: columns.length - 0.5, ticks: columns.map(([, text], i) => [i, brief(narrow ? text.replace("keep ", "") : text, 18)]) },
      y: { down: true, low: -0.5, high: names.length - 0.5, ticks: names.map((name, i) => [i, brief(name, narrow ? 14 : 24)]) },
      tiles: found.map(tile => ({ x: tile.x, y: tile.y, share: tile.share, words: columns.length > 30 ? "" : tile.share.toFixed(digits), text: lines(tile.name, tile.column, `score / dense ${num(tile.share)}`) })),
    });
  }

  function bars(word, id, unit) {
    const at = choice(), picked = by("time-keep").value, one = at.model >= 0 && at.task >= 0, name = unit.name, letter = word[0];
    const wanted = entry => picked === "" || isDense(entry.setting) || keepOf(entry.setting) === keeps[Number(picked)];
    const list = one ? cells.filter(cell => inChoice(cell, at)).filter(wanted).map(cell => ({ setting: cell.setting, value: cell[name], low: cell[`${letter}early`], high: cell[`${letter}late`], floor: cell[`${letter}floor`], doubt: doubtOf(cell, letter), loose: cell[`${letter}loose`], fold: unit.fold })) : rows.filter(row => row.model === at.model).filter(wanted).map(row => ({ setting: row.setting, value: row[word], low: row[`${letter}low`], high: row[`${letter}high`], floor: null, fold: 1 }));
    const all = ordered(list.filter(entry => !lacks(entry.value)));
    if (!all.length) { clear(id); return null; }
    const drawn = all.slice(0, BARS), dense = one ? drawn.find(entry => isDense(entry.setting)) : null;
    const flags = entry => `${entry.doubt && entry.doubt.length ? " ⚠" : ""}${entry.loose ? " ~" : ""}`;
    const scaled = drawn.map(entry => ({ name: (isDense(entry.setting) ? "dense" : `${methodOf(entry.setting)} ${keepText(keepOf(entry.setting))}`), flags: flags(entry), setting: entry.setting, doubt: entry.doubt || [], loose: entry.loose, ...Object.fromEntries(["value", "low", "high", "floor"].map(key => [key, lacks(entry[key]) ? null : entry[key] * entry.fold])) }));
    const line = one ? dense && dense.value * dense.fold : 1, floors = scaled.filter(entry => !lacks(entry.floor)).length;
    const digits = 2, suffix = one ? ` ${unit.unit}` : " ×", wide = by("times").clientWidth >= 640;
    plot.draw(by(id), {
      title: `${unit.title} by setting; the numbers stand in the results table`, height: 96 + 24 * drawn.length, above: 26,
      x: { title: one ? `${unit.title}, ${unit.unit}${wide ? " (shorter is faster)" : ""}` : `${unit.title}, speed-up${wide ? " (longer is faster)" : ""}`, low: 0, high: 1.04 * Math.max(...scaled.flatMap(e => [e.value, e.high, e.floor]), line) },
      y: { down: true, low: -0.5, high: drawn.length - 0.5, ticks: scaled.map((e, i) => [i, brief(e.name, wide ? 30 : 18) + e.flags]) },
      rules: lacks(line) ? [] : [{ on: "x", at: line, text: `dense${one ? ` ${num(line, digits)}${suffix}` : ""}` }],
      bars: scaled.map(e => ({
        value: e.value, low: e.low, high: e.high, floor: e.floor, hatched: e.doubt.length > 0, tone: isDense(e.setting) ? "var(--soft)" : colour(methods.indexOf(methodOf(e.setting))),
        text: lines(e.name + e.flags, `${num(e.value, digits)}${suffix}${report.range(e.low, e.high, digits)}`, !lacks(e.floor) && `physical floor ${num(e.floor, digits)}${suffix}`, ...e.doubt.map(reason => `⚠ untrusted: ${reason}`), e.loose && "~ not settled"),
      })),
    });
    return { all: all.length, drawn: drawn.length, floors, doubt: drawn.some(e => e.doubt && e.doubt.length), loose: drawn.some(e => e.loose) };
  }
  function times() {
    const units = { ttft: { name: "ttft_s", fold: 1000, unit: "ms", title: "Time to first token" }, decode: { name: "decode_ms_per_token", fold: 1, unit: "ms/token", title: "Decode" }, batch: { name: "batch_decode_ms_per_step", fold: 1, unit: "ms/step", title: "Decode of a batch" } };
    const found = Object.entries(units).map(([word, unit]) => bars(word, `${word}-chart`, unit)).filter(Boolean);
    const { model, task } = choice(), cut = found.find(one => one.drawn < one.all);
    by("times-lead").textContent = !found.length ? "No times were measured for this choice: bench_tests/test_efficiency.py measures them." : `${model >= 0 && task >= 0 ? "Medians over rounds; whiskers are 95 % intervals." : "Speed-ups against dense, geometric means over tasks. Choose one model and one task for milliseconds."} The dashed line is dense.${found.some(one => one.floors) ? " The short upright strokes are the physical floor: bytes to move and operations to do at the device’s own limits." : ""}${found.some(one => one.doubt) ? " Hatched bars marked ⚠ are untrusted: they stand in no mean." : ""}${found.some(one => one.loose) ? " Times marked ~ did not settle." : ""}${cut ? ` The first ${cut.drawn} of ${cut.all} bars are drawn; choose a budget to see the others.` : ""}`;
  }

  const all = [tradeoff, heat, times];
  function start() {
    options(by("chart-y"), Object.entries(UP));
    options(by("chart-x"), Object.entries(ACROSS));
    options(by("heat-keep"), [["", "all, OP over tasks"], ...keeps.map((keep, i) => [i, `${budgetText(keep)}, by task`])]);
    options(by("time-keep"), [["", "all"], ...keeps.map((keep, i) => [i, budgetText(keep)])]);
    if (methods.length * keeps.length > BARS / 2) by("time-keep").value = String(Math.floor((keeps.length - 1) / 2));
    for (const id of ["chart-x", "chart-y"]) by(id).addEventListener("change", tradeoff);
    by("heat-keep").addEventListener("change", heat);
    by("time-keep").addEventListener("change", times);
    let width = innerWidth;
    addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; report.inTurn([...all, () => performance.mark("drawn")]); } });
  }
  return { start, all };
})();
