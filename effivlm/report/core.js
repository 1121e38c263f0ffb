"use strict";
// What all parts of the page share: the data as objects, how numbers and hostile text are written, and sortable tables.
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 40;
  // Entries read their columns when they are asked: ten thousand objects of seventy values each would block the page.
  function unpack({ length, columns }) {
    function Entry(place) { this.place = place; }
    for (const [name, column] of Object.entries(columns)) Object.defineProperty(Entry.prototype, name, Array.isArray(column) ? { get() { return column[this.place]; } } : { value: column.all });
    return Array.from({ length }, (_, place) => new Entry(place));
  }
  const changed = (entry, values) => Object.create(entry, Object.fromEntries(Object.entries(values).map(([name, value]) => [name, { value }])));
  const cells = unpack(data.cells), rows = unpack(data.rows);

  const plain = preset => ["paper", ""].includes(preset);
  const label = (method, preset) => (plain(preset) ? method : `${method}@${preset}`);
  const methodOf = s => label(data.settings[s][0], data.settings[s][1]);
  const keepOf = s => data.settings[s][2];
  const sizeOf = s => data.sizes[s]; // what a budget comes to on an axis of its kind
  const isDense = s => data.settings[s][0] === "dense";
  const methods = [...new Set(data.settings.map((_, s) => s).filter(s => !isDense(s)).map(methodOf))].sort();
  const keeps = [...new Set(data.settings.map((_, s) => s).filter(s => !isDense(s)).sort((a, b) => data.ranks[a] - data.ranks[b]).map(keepOf))];

  // what a budget is a share of: shares of one thing and of another stand in no column and on no axis together
  const kindOf = s => (isDense(s) || data.ofs[s] === null ? "" : data.kinds[data.ofs[s]]);
  const settingWith = (name, keep) => data.settings.findIndex((_, s) => !isDense(s) && methodOf(s) === name && keepOf(s) === keep);
  const kinds = [...new Set(data.settings.map((_, s) => kindOf(s)).filter(Boolean))].sort().reverse();
  const rankOf = s => (isDense(s) ? -1 : kinds.indexOf(kindOf(s)));

  const by = id => document.getElementById(id);
  const lacks = value => value === null || value === undefined;
  function make(name, text, attributes = {}) {
    const made = document.createElement(name);
    if (!lacks(text)) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }
  const num = (value, digits = 3) => (lacks(value) ? "–" : value.toFixed(digits));
  const range = (low, high, digits = 3) => (lacks(low) || lacks(high) ? "" : ` [${low.toFixed(digits)}, ${high.toFixed(digits)}]`);
  // a divergence spans decades: two digits of each, "≥" where a part of dense's mass worth naming was not told apart
  const nat = value => (value === 0 ? "0" : value < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(2))));
  const nats = (value, low, high, rest) => (lacks(value) ? "–" : (rest > 0.001 ? "≥ " : "") + nat(value) + (lacks(low) || lacks(high) ? "" : ` [${nat(low)}, ${nat(high)}]`));
  const signed = (value, digits) => (lacks(value) ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`);
  const tooFew = entry => (lacks(entry.low) && !lacks(entry.score) && entry.units < data.least ? " [n too small]" : "");
  const mark = (entry, letter) => `${entry[`${letter}doubt`] ? " ⚠" : ""}${entry[`${letter}loose`] ? " ~" : ""}`;
  const keepText = keep => (typeof keep === "string" ? keep : String(Number(keep.toPrecision(4))));
  const budgetText = keep => (/^[0-9]+tok$/.test(keep) || typeof keep === "number" ? `keep ${keepText(keep)}` : keep);
  const heading = kind => (/^weight/.test(kind) ? `setting, of ${kind}` : `keep, of ${kind}`);
  const bytes = value => {
    if (lacks(value)) return "–";
    const power = Math.min(4, Math.floor(Math.log2(Math.max(1, value)) / 10));
    return `${(value / 1024 ** power).toFixed(power ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
  };
  // control characters and direction overrides are shown, not obeyed
  const visible = text => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, c => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  // text that may scroll inside its box can be reached by keyboard
  const long = (text, kind, name) => make("p", text, { class: kind, dir: "auto", ...(text.length > 200 || text.split("\n").length > 6 ? { tabindex: "0", role: "group", "aria-label": name } : {}) });
  function options(select, pairs) {
    for (const [value, text] of pairs) select.append(make("option", visible(text), { value }));
  }
  function button(text, onClick, attributes = {}) {
    const made = make("button", text, { type: "button", ...attributes });
    made.addEventListener("click", () => onClick(made));
    return made;
  }

  // A table that scrolls inside, sorts by its heads and shows some of its rows at first.
  // columns: {head, text: row => string or element, value: row => sortable, kind: "head" | "text" | "remarks" | undefined, tone}
  // Rows of one section stay together, also when they are sorted, under a row that names it.
  function table(host, columns, entries, { rowClass = () => "", name = "", start = PAGE, section = () => "" } = {}) {
    host.replaceChildren();
    if (!entries.length) { host.append(make("p", "Nothing was measured for this choice.", { class: "lead" })); return; }
    const box = make("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": name });
    const made = make("table"), head = make("tr"), body = make("tbody"), more = make("div", null, { class: "more" });
    const sections = [...new Set(entries.map(section))];
    let order = [...entries], sorted = null, shown = 0, under = "";
    function sort(column, place, th) {
      const down = sorted && sorted.place === place ? !sorted.down : !column.kind;
      sorted = { place, down };
      for (const other of head.children) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = column.value || column.text;
      order = [...entries].sort((a, b) => {
        const apart = sections.indexOf(section(a)) - sections.indexOf(section(b)), left = key(a), right = key(b);
        if (apart) return apart;
        if (lacks(left) || lacks(right)) return lacks(left) - lacks(right);
        return (left < right ? -1 : left > right ? 1 : 0) * (down ? -1 : 1);
      });
      const count = Math.max(start, shown);
      body.replaceChildren();
      shown = 0;
      under = "";
      extend(count);
    }
    columns.forEach((column, place) => {
      const th = make("th", null, { scope: "col", class: column.kind ? "text" : "" });
      th.append(column.head ? button(column.head, () => sort(column, place, th)) : make("span", "mark", { class: "unseen" }));
      head.append(th);
    });
    function extend(count) {
      for (const entry of order.slice(shown, shown + count)) {
        if (section(entry) !== under) {
          under = section(entry);
          const over = make("tr", null, { class: "section" });
          const across = make("th", null, { scope: "rowgroup", colspan: columns.length });
          across.append(make("span", visible(under)));
          over.append(across);
          body.append(over);
        }
        const tr = make("tr", null, { class: sorted ? "" : rowClass(entry) });
        for (const column of columns) {
          const found = column.text(entry), cell = make(column.kind === "head" ? "th" : "td", null, column.kind === "head" ? { scope: "row" } : { class: `${column.kind || ""} ${column.tone ? column.tone(entry) : ""}`.trim() });
          if (found instanceof Element) cell.append(found); else cell.textContent = visible(found);
          tr.append(cell);
        }
        body.append(tr);
      }
      shown = Math.min(order.length, shown + count);
      more.replaceChildren();
      if (shown < order.length) more.append(make("span", `${shown} of ${order.length} rows`), button(`Show ${Math.min(10 * PAGE, order.length - shown)} more`, () => { const from = shown; extend(10 * PAGE); const next = body.children[from]; next.tabIndex = -1; next.focus(); }));
    }
    const thead = make("thead");
    thead.append(head);
    made.append(thead, body);
    box.append(made);
    host.append(box, more);
    extend(start);
  }

  const inTurn = steps => steps.forEach(step => setTimeout(step)); // each in a task of its own
  const choice = () => ({ model: Number(by("model").value || -1), task: Number(by("task").value || -1) });
  const inChoice = (entry, { model, task }) => (model < 0 || entry.model === model) && (task < 0 || entry.task === task);
  const order = data.settings.map((_, s) => s).sort((a, b) => rankOf(a) - rankOf(b) || methodOf(a).localeCompare(methodOf(b)) || data.ranks[b] - data.ranks[a]), placeOf = order.reduce((found, s, place) => { found[s] = place; return found; }, []);
  const ordered = list => [...list].sort((a, b) => placeOf[a.setting] - placeOf[b.setting] || a.model - b.model);
  const refusals = word => data.refused.filter(one => one.table === word);

  // sections of their own: their rows, with the lists that they share
  const shared = ["tasks", "missing"], valued = (row, names) => Object.fromEntries(names.map(name => [name, shared.includes(name) ? data.lists[row[name]] : row[name]]));
  const asides = Object.fromEntries(["parameters", "compositions", "suites", "judges"].map(name => [name, unpack(data[name]).map(row => valued(row, Object.keys(data[name].columns)))]));

  return { data, cells, rows, asides, changed, label, plain, methodOf, keepOf, sizeOf, isDense, kindOf, settingWith, kinds, methods, keeps, by, lacks, make, num, signed, tooFew, mark, range, nats, keepText, budgetText, heading, bytes, visible, long, options, button, table, inTurn, choice, inChoice, ordered, refusals };
})();
