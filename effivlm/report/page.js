"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const named = (columns, rows) => rows.map(row => Object.fromEntries(columns.map((column, i) => [column, row[i]])));
  const cells = named(data.cellColumns, data.cells), rows = named(data.rowColumns, data.rows);
  const methodOf = s => (["paper", ""].includes(data.settings[s][1]) ? data.settings[s][0] : `${data.settings[s][0]}@${data.settings[s][1]}`);
  const keepOf = s => data.settings[s][2];
  const isDense = s => data.settings[s][0] === "dense";
  const methods = [...new Set(data.settings.map((_, s) => s).filter(s => !isDense(s)).map(methodOf))].sort();
  const hidden = new Set();
  const PAGE = 100;

  const by = id => document.getElementById(id);
  function make(name, text, attributes = {}) {
    const made = document.createElement(name);
    if (text !== undefined && text !== null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }
  const num = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const range = (low, high, digits = 3) => (low === null || low === undefined ? "" : ` [${low.toFixed(digits)}, ${high.toFixed(digits)}]`);
  const keepText = keep => String(Number(keep.toPrecision(4)));
  const bytes = value => {
    if (value === null || value === undefined) return "–";
    const power = Math.min(4, Math.floor(Math.log2(Math.max(1, value)) / 10));
    return `${(value / 1024 ** power).toFixed(power ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
  };
  // control characters and direction overrides are shown, not obeyed
  const visible = text => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, c => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  function options(select, pairs) {
    for (const [value, text] of pairs) select.append(make("option", visible(text), { value }));
  }

  // A table that scrolls inside, sorts by its heads and shows some of its rows at first.
  // columns: {head, text: row => string, value: row => sortable, kind: "head" | "text" | "remarks" | undefined}
  function table(host, columns, entries, rowClass = () => "", name = "", start = PAGE) {
    host.replaceChildren();
    if (!entries.length) { host.append(make("p", "Nothing was measured for this choice.", { class: "lead" })); return; }
    const box = make("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": name });
    const made = make("table"), head = make("tr"), body = make("tbody"), more = make("div", null, { class: "more" });
    let order = [...entries], sorted = null, shown = 0;
    columns.forEach((column, place) => {
      const th = make("th", null, { scope: "col", class: column.kind ? "text" : "" }), button = make("button", column.head, { type: "button" });
      button.addEventListener("click", () => {
        const down = sorted && sorted.place === place ? !sorted.down : !column.kind;
        sorted = { place, down };
        for (const other of head.children) other.removeAttribute("aria-sort");
        th.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = column.value || column.text;
        const lacks = v => v === null || v === undefined;
        order = [...entries].sort((a, b) => {
          const left = key(a), right = key(b);
          if (lacks(left) || lacks(right)) return lacks(left) - lacks(right);
          return (left < right ? -1 : left > right ? 1 : 0) * (down ? -1 : 1);
        });
        fill(Math.max(start, shown));
      });
      th.append(button);
      head.append(th);
    });
    function fill(count) {
      body.replaceChildren();
      shown = 0;
      extend(count);
    }
    function extend(count) {
      for (const entry of order.slice(shown, shown + count)) {
        const tr = make("tr", null, { class: sorted ? "" : rowClass(entry) });
        for (const column of columns) tr.append(make(column.kind === "head" ? "th" : "td", visible(column.text(entry)), column.kind === "head" ? { scope: "row" } : { class: `${column.kind || ""} ${column.tone ? column.tone(entry) : ""}`.trim() }));
        body.append(tr);
      }
      shown = Math.min(order.length, shown + count);
      more.replaceChildren();
      if (shown < order.length) {
        const button = make("button", `Show ${Math.min(5 * PAGE, order.length - shown)} more`, { type: "button" });
        button.addEventListener("click", () => extend(5 * PAGE));
        more.append(make("span", `${shown} of ${order.length} rows`), button);
      }
    }
    const thead = make("thead");
    thead.append(head);
    made.append(thead, body);
    box.append(made);
    host.append(box, more);
    fill(start);
  }

  const choice = () => ({ model: Number(by("model").value), task: Number(by("task").value) });
  const ordered = list => [...list].sort((a, b) => isDense(b.setting) - isDense(a.setting) || methodOf(a.setting).localeCompare(methodOf(b.setting)) || keepOf(b.setting) - keepOf(a.setting) || (a.model - b.model));
  const inChoice = (entry, { model, task }) => (model < 0 || entry.model === model) && (task < 0 || entry.task === task);
  const remarksOf = cell => [...cell.remarks.map(i => data.remarks[i]), ...(cell.broken ? [`${cell.broken} broken samples left out`] : [])].join("; ") || "";

  function startsMethod(list) {
    let last = null;
    const first = new Set();
    for (const entry of list) { if (methodOf(entry.setting) !== last) first.add(entry); last = methodOf(entry.setting); }
    return entry => (isDense(entry.setting) ? "dense" : first.has(entry) ? "group" : "");
  }
  const methodColumns = [
    { head: "method", kind: "head", text: r => methodOf(r.setting) },
    { head: "keep", text: r => keepText(keepOf(r.setting)), value: r => keepOf(r.setting) },
  ];
  const speedColumns = [
    { head: "TTFT ×", text: r => num(r.ttft, 2) + range(r.tlow, r.thigh, 2), value: r => r.ttft },
    { head: "decode ×", text: r => num(r.decode, 2) + range(r.dlow, r.dhigh, 2), value: r => r.decode },
  ];

  function results() {
    const at = choice(), host = by("results-body");
    if (at.task < 0) return overall(at, host);
    const list = ordered(cells.filter(cell => inChoice(cell, at)));
    by("results-lead").textContent = `Scores are ${data.metrics[at.task] || "the task’s metric"} on the benchmark’s scale; the brackets are 95 % intervals over samples.`;
    table(host, [
      ...methodColumns,
      ...(at.model < 0 ? [{ head: "model", kind: "text", text: r => data.models[r.model] }] : []),
      { head: "score", text: r => num(r.score === null ? null : r.score * r.scale, 1) + range(r.low === null ? null : r.low * r.scale, r.high * r.scale, 1), value: r => r.score },
      { head: "n", text: r => String(r.n), value: r => r.n },
      { head: "OP ratio", text: r => num(r.ratio) + range(r.rlow, r.rhigh), value: r => r.ratio },
      { head: "better / worse, p", text: r => (r.p === null ? "–" : `${r.better} / ${r.worse}, p ${r.p < 0.001 ? "< 0.001" : r.p.toFixed(3)}`), value: r => r.p },
      { head: "same as dense", text: r => num(r.same), value: r => r.same },
      ...speedColumns,
      { head: "TTFT ms", text: r => num(r.ttft_s === null ? null : r.ttft_s * 1000, 1), value: r => r.ttft_s },
      { head: "decode ms/token", text: r => num(r.decode_ms, 2), value: r => r.decode_ms },
      { head: "asked / kept", text: r => (r.asked === null ? "–" : `${keepText(r.asked)} / ${num(r.keep)}`), value: r => r.keep },
      { head: "remarks", kind: "remarks", text: remarksOf },
    ], list, startsMethod(list), "Results by cell");
  }

  function overall(at, host) {
    const list = ordered(rows.filter(row => row.model === at.model));
    const spread = rows.some(row => row.model === at.model && row.ogm !== null);
    const sets = new Set(list.map(row => row.set));
    by("results-lead").textContent = (at.model < 0 ? "All models together: OP is defined for one model, so choose one to see it. " : "OP is the root mean square over tasks of score / dense score; dense is 1. ")
      + (sets.has("common") || !list.length ? "All settings are compared on the tasks that all of them have." : "No task is shared by all settings: each row stands on its own tasks and is not comparable with the others.");
    table(host, [
      ...methodColumns,
      ...(at.model < 0 ? [] : [
        { head: "OP", text: r => num(r.op) + range(r.low, r.high), value: r => r.op },
        { head: "plain mean", text: r => num(r.mean), value: r => r.mean },
      ]),
      { head: "tasks", text: r => `${r.tasks ?? "–"}${r.set === "own" ? " (own)" : ""}${r.undefined ? `, ${r.undefined} undefined` : ""}`, value: r => r.tasks },
      { head: "same as dense (OL)", text: r => num(r.ol) + range(r.ollow, r.olhigh), value: r => r.ol },
      { head: "OG %", text: r => num(r.og, 1), value: r => r.og },
      ...(spread ? [{ head: "OG over models %", text: r => num(r.ogm, 1), value: r => r.ogm }] : []),
      ...speedColumns,
      { head: "cache kept", text: r => num(r.kv), value: r => r.kv },
    ], list, startsMethod(list), "Results by setting");
  }

  const ACROSS = { keep: "keep, asked", kv: "cache bytes / dense", ttft: "TTFT speed-up", decode: "decode speed-up" };
  const UP = { quality: "quality kept (OP)", loyalty: "same as dense (OL)" };
  function chartPoints() {
    const at = choice(), x = by("chart-x").value, y = by("chart-y").value;
    if (at.model < 0 && at.task >= 0) return [];
    const found = at.task < 0 ? rows.filter(row => row.model === at.model) : cells.filter(cell => inChoice(cell, at) && !isDense(cell.setting));
    return found.map(one => {
      const kv = one.kv_dense === undefined ? one.kv : one.kv_dense ? one.kv / one.kv_dense : null;
      const across = { keep: keepOf(one.setting), kv, ttft: one.ttft, decode: one.decode }[x];
      const quality = at.task < 0 ? one.op : one.ratio, up = y === "quality" ? quality : at.task < 0 ? one.ol : one.same;
      return { series: methods.indexOf(methodOf(one.setting)), x: across, y: up, order: keepOf(one.setting),
        title: `${methodOf(one.setting)}, keep ${keepText(keepOf(one.setting))}\n${UP[y]} ${num(up)}\n${ACROSS[x]} ${num(across)}` };
    }).filter(point => point.x !== null && point.x !== undefined && point.y !== null && point.y !== undefined);
  }
  function markFront(points, smaller) {
    let best = -Infinity;
    for (const point of [...points].sort((a, b) => (smaller ? a.x - b.x : b.x - a.x) || b.y - a.y)) { point.front = point.y > best; best = Math.max(best, point.y); }
  }
  function tradeoff() {
    const x = by("chart-x").value, all = chartPoints(), legend = by("legend");
    const points = all.filter(point => !hidden.has(methods[point.series]));
    markFront(points, x === "keep" || x === "kv");
    legend.replaceChildren();
    for (const i of [...new Set(all.map(point => point.series))].sort((a, b) => a - b)) {
      const button = make("button", null, { type: "button", "aria-pressed": String(!hidden.has(methods[i])) });
      button.append(chart.swatch(i), make("span", visible(methods[i])));
      button.addEventListener("click", () => { hidden.has(methods[i]) ? hidden.delete(methods[i]) : hidden.add(methods[i]); const place = [...legend.children].indexOf(button); tradeoff(); legend.children[place].focus(); });
      legend.append(button);
    }
    by("chart-lead").textContent = points.length ? "Filled marks are on the Pareto front: no other setting shown is better both ways. The dashed line is dense. Hover a mark for its numbers; the results table below holds them all." : all.length ? "All methods are switched off." : choice().model < 0 ? "Choose one model to see this chart." : `No setting has both ${UP[by("chart-y").value]} and ${ACROSS[x]} for this choice.`;
    if (!points.length) { by("chart").replaceChildren(); return; }
    const xs = points.map(point => point.x), log = x === "keep" || (x === "kv" && Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) > 20);
    chart.draw(by("chart"), points, methods, { title: ACROSS[x] + (log ? " (log scale)" : ""), log, across: x === "ttft" || x === "decode" ? [1] : [], format: keepText, label: `${UP[by("chart-y").value]} against ${ACROSS[x]}; the numbers stand in the results table` });
  }

  function heat() {
    const at = choice(), host = by("heat-body");
    const all = at.task < 0 ? rows.filter(row => row.model === at.model).map(row => [row.setting, row.op]) : at.model < 0 ? [] : cells.filter(cell => inChoice(cell, at) && !isDense(cell.setting)).map(cell => [cell.setting, cell.ratio]);
    const known = new Map(all.filter(pair => pair[1] !== null && pair[1] !== undefined).map(([s, value]) => [`${methodOf(s)}\n${keepOf(s)}`, value]));
    const keeps = [...new Set(all.map(([s]) => keepOf(s)))].sort((a, b) => a - b), names = [...new Set(all.map(([s]) => methodOf(s)))].sort();
    host.replaceChildren();
    by("heat-lead").textContent = known.size ? `${at.task < 0 ? "OP over tasks" : `Score / dense score on ${data.tasks[at.task]}`}; dense is 1. The stronger the colour, the nearer to dense.` : "Choose one model to see its budgets side by side.";
    if (!known.size) return;
    const box = make("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": "Heat map" }), made = make("table", null, { class: "heat" }), thead = make("thead"), head = make("tr"), body = make("tbody");
    head.append(make("th", "method", { scope: "col" }), ...keeps.map(keep => make("th", `keep ${keepText(keep)}`, { scope: "col" })));
    for (const name of names) {
      const tr = make("tr");
      tr.append(make("th", visible(name), { scope: "row" }));
      for (const keep of keeps) {
        const value = known.get(`${name}\n${keep}`), td = make("td", num(value));
        if (value !== undefined) td.style.background = `rgba(var(--heat), ${(0.55 * Math.max(0, Math.min(1, value)) ** 2).toFixed(3)})`;
        tr.append(td);
      }
      body.append(tr);
    }
    thead.append(head);
    made.append(thead, body);
    box.append(made);
    host.append(box);
  }

  function audit() {
    const at = choice(), list = ordered(cells.filter(cell => inChoice(cell, at) && cell.asked !== null && !isDense(cell.setting)));
    const apart = r => Math.abs(r.keep - r.asked);
    const off = r => apart(r) > Math.min(0.01, 0.1 * r.asked);
    table(by("audit-body"), [
      ...methodColumns,
      ...(at.model < 0 ? [{ head: "model", kind: "text", text: r => data.models[r.model] }] : []),
      ...(at.task < 0 ? [{ head: "task", kind: "text", text: r => data.tasks[r.task] }] : []),
      { head: "of", kind: "text", text: r => data.kinds[r.of] },
      { head: "asked", text: r => keepText(r.asked), value: r => r.asked },
      { head: "kept", text: r => num(r.keep, 4), value: r => r.keep },
      { head: "", kind: "text", text: r => (off(r) ? "off" : ""), tone: r => (off(r) ? "off" : "") },
      { head: "kept / all", text: r => `${r.kept.toLocaleString("en")} / ${r.total.toLocaleString("en")}`, value: r => r.kept },
      { head: "cache", text: r => bytes(r.kv || null), value: r => r.kv },
      { head: "dense cache", text: r => bytes(r.kv_dense || null), value: r => r.kv_dense },
    ], list.sort((a, b) => apart(b) - apart(a)), () => "", "Budgets", 20);
  }

  let first = 0;
  function changed() {
    const at = choice(), setting = by("changed-setting").value, kind = by("changed-kind").value, host = by("changed-body"), SHOWN = 10;
    const direction = one => (one.dense.score === null || one.compressed.score === null ? 0 : Math.sign(one.compressed.score - one.dense.score));
    const list = data.changed.shown.filter(one => (at.model < 0 || one.model === data.models[at.model]) && (at.task < 0 || one.task === data.tasks[at.task]) && (!setting || `${one.method}@${one.preset} ${one.keep}` === setting) && (kind === "any" || direction(one) === Number(kind)));
    first = Math.max(0, Math.min(first, list.length - 1));
    by("changed-lead").textContent = `${data.changed.total.toLocaleString("en")} answers of this run differ from dense; ${data.changed.total > data.changed.shown.length ? `this page holds ${data.changed.shown.length.toLocaleString("en")} of them, taken in turn from every cell, the largest changes of score first` : "all are here"}. ${list.length.toLocaleString("en")} match the choice.`;
    host.replaceChildren();
    for (const one of list.slice(first, first + SHOWN)) host.append(card(one, direction(one)));
    if (list.length <= SHOWN) return;
    const more = make("div", null, { class: "more" });
    for (const [text, step] of [["Previous", -SHOWN], ["Next", SHOWN]]) {
      const button = make("button", text, { type: "button" });
      button.disabled = first + step < 0 && first === 0 || first + step >= list.length;
      button.addEventListener("click", () => { first = Math.max(0, first + step); changed(); by("changed").scrollIntoView(); });
      more.append(button);
    }
    more.append(make("span", `${first + 1} to ${Math.min(list.length, first + SHOWN)} of ${list.length}`));
    host.append(more);
  }
  function card(one, direction) {
    const made = make("article", null, { class: one.thumbnail === null ? "card plain" : "card" }), text = make("div"), pair = make("div", null, { class: "pair" });
    if (one.thumbnail !== null) made.append(make("img", null, { src: data.pictures[one.thumbnail], alt: `Image of sample ${one.sample}`, loading: "lazy" }));
    const preset = ["paper", ""].includes(one.preset) ? "" : `@${one.preset}`;
    text.append(make("h3", visible(`${one.method}${preset}, keep ${keepText(one.keep)} · ${one.task} · ${one.model}`)), make("small", visible(`sample ${one.sample}`)));
    text.append(one.prompt ? make("p", visible(one.prompt), { class: "prompt", dir: "auto" }) : make("p", `The question was not stored (sha256 ${one.prompt_sha256.slice(0, 12)}…).`, { class: "lead" }));
    if (one.references.length) text.append(make("small", visible(`accepted: ${one.references.join(" | ")}`)));
    for (const [label, side, tone] of [["dense", one.dense, ""], ["compressed", one.compressed, direction < 0 ? "wrong" : direction > 0 ? "right" : ""]]) {
      const box = make("div");
      box.append(make("small", `${label}, score ${num(side.score, 2)}`), make("span", tone === "wrong" ? "  ↓ worse" : tone === "right" ? "  ↑ better" : "", { class: tone }), make("p", side.text ? visible(side.text) : "(empty answer)", { class: "answer", dir: "auto" }));
      pair.append(box);
    }
    text.append(pair);
    made.append(text);
    return made;
  }

  function unmeasured() {
    const host = by("unmeasured-body");
    if (!data.unmeasured.length) host.append(make("p", "Every selected cell was measured.", { class: "lead" }));
    for (const one of data.unmeasured) {
      const box = make("article", null, { class: "card plain" }), inner = make("div"), list = make("details");
      inner.append(make("h3", `${one.status === "unsupported" ? "Skipped" : one.status === "failed" ? "Failed" : "Interrupted"}: ${one.count} ${one.count === 1 ? "case" : "cases"}`, { class: one.status === "unsupported" ? "" : "wrong" }), make("p", visible(one.reason || "no reason was recorded"), { class: "reason", dir: "auto" }));
      list.append(make("summary", one.count > one.cells.length ? `Which (${one.cells.length} of ${one.count})` : "Which"), make("p", visible(one.cells.join("\n")), { class: "reason" }));
      inner.append(list);
      box.append(inner);
      host.append(box);
    }
  }

  function start() {
    if (data.models.length > 1) options(by("model"), [["-1", "all models"]]);
    options(by("model"), data.models.map((name, i) => [i, name]));
    by("model").value = data.models.length ? "0" : "";
    options(by("task"), [...(data.tasks.length === 1 ? [] : [["-1", "all tasks"]]), ...data.tasks.map((name, i) => [i, name])]);
    options(by("chart-y"), Object.entries(UP));
    options(by("chart-x"), Object.entries(ACROSS));
    options(by("changed-kind"), [["any", "any change"], ["-1", "score fell"], ["1", "score rose"], ["0", "score equal"]]);
    const keys = new Map(data.changed.shown.map(one => [`${one.method}@${one.preset} ${one.keep}`, `${one.method}${["paper", ""].includes(one.preset) ? "" : `@${one.preset}`}, keep ${keepText(one.keep)}`]));
    options(by("changed-setting"), [["", "all settings"], ...[...keys].sort((a, b) => (a[1] < b[1] ? -1 : 1))]);
    const all = () => { first = 0; results(); tradeoff(); heat(); changed(); audit(); };
    for (const id of ["model", "task"]) by(id).addEventListener("change", all);
    for (const id of ["chart-x", "chart-y"]) by(id).addEventListener("change", tradeoff);
    for (const id of ["changed-setting", "changed-kind"]) by(id).addEventListener("change", () => { first = 0; changed(); });
    let width = innerWidth;
    addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; tradeoff(); } });
    unmeasured();
    all();
  }
  start();
})();
