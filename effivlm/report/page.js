"use strict";
// The tables of the page, and its start.
(() => {
  const { data, cells, rows, changed, methodOf, keepOf, isDense, kindOf, by, lacks, make, num, signed, tooFew, mark, range, nats, keepText, heading, bytes, visible, options, table, inTurn, choice, inChoice, ordered, refusals } = report;
  const BLOCKS = "▁▂▃▄▅▆▇█";
  const scaled = (value, cell) => (lacks(value) ? null : value * cell.scale);
  const setNote = row => (row.set === "own" ? " (own)" : "");

  function startsMethod(list) {
    let last = null;
    const first = new Set();
    for (const entry of list) { if (methodOf(entry.setting) !== last) first.add(entry); last = methodOf(entry.setting); }
    return entry => (isDense(entry.setting) ? "dense" : first.has(entry) ? "group" : "");
  }
  const methodColumns = [
    { head: "method", kind: "head", text: r => methodOf(r.setting) },
    { head: "keep", text: r => keepText(keepOf(r.setting)), value: r => data.ranks[r.setting] },
  ];
  const modelColumn = at => (at.model < 0 ? [{ head: "model", kind: "text", text: r => data.models[r.model] }] : []);
  const taskColumn = at => (at.task < 0 ? [{ head: "task", kind: "text", text: r => data.tasks[r.task] }] : []);
  const copies = [...new Set(cells.map(cell => cell.copies).filter(n => !lacks(n)))].sort((a, b) => a - b).join(", ");
  const speedColumns = [["ttft", "TTFT ×"], ["decode", "decode ×"], ["batch", `decode × at batch ${copies}`]].filter(([word]) => word !== "batch" || copies).map(([word, head]) => (
    { head, text: r => num(r[word], 2) + range(r[`${word[0]}low`], r[`${word[0]}high`], 2) + (lacks(r[word]) ? "" : mark(r, word[0])), value: r => r[word], tone: r => (r[`${word[0]}doubt`] ? "off" : "") }));
  const section = r => (kindOf(r.setting) ? heading(kindOf(r.setting)) : "");
  function show(host, columns, list, name, start) { table(by(host), columns, list, { rowClass: startsMethod(list), name, start, section }); }
  const againstRandom = (list, scale, digits) => (list.some(r => r.verdict) ? [{
    head: "− random", value: r => r.vs, tone: r => ({ "beats random": "right", "below random": "wrong" })[r.verdict] || "",
    text: r => (!r.verdict ? "–" : r.verdict === "no control ran" ? r.verdict : `${signed(lacks(r.vs) ? null : r.vs * scale(r), digits)}${range(lacks(r.vslow) ? null : r.vslow * scale(r), lacks(r.vshigh) ? null : r.vshigh * scale(r), digits)} ${r.verdict.replace(" random", "")}`),
  }] : []);
  const uncontrolled = list => {
    const count = list.filter(r => r.verdict === "no control ran").length;
    return count ? ` No random control ran for ${count} of these rows, so nothing here says that they beat chance: select random_visual or random_kv too.` : "";
  };
  // what the samples of a table could show, and how its many comparisons are kept from being false discoveries
  const middle = values => { const known = values.filter(v => !lacks(v)).sort((a, b) => a - b); return known.length ? known[Math.floor(known.length / 2)] : null; };
  const power = (list, scale, digits) => { const least = middle(list.map(r => (lacks(r.detectable) ? null : r.detectable * scale(r)))); return lacks(least) ? "" : ` With its samples a row shows a difference to dense of ${num(least, digits)} four times in five, and seldom a smaller one (the median row).`; };
  const small = p => (p < 0.001 ? "< 0.001" : p.toFixed(3));
  const judged = family => { const found = data.discoveries, count = found?.families[family]; return count > 1 ? ` Verdicts and q hold the rate of false ones at ${num(100 * found.rate, 0)} % over the ${count} comparisons of this report (${found.rule}).` : ""; };
  // Remarks stand under the table by number, so that a long one makes no row tall.
  function remarked(list) {
    const places = [...new Set(list.flatMap(r => [...r.remarks, ...["t", "d", "b"].flatMap(letter => r[`${letter}doubt`] || [])]))], number = new Map(places.map((place, i) => [place, i + 1]));
    const own = r => [...new Set([...r.remarks, ...["t", "d", "b"].flatMap(letter => r[`${letter}doubt`] || [])])];
    const column = { head: "remarks", kind: "text", text: r => [...own(r).map(place => number.get(place)), ...(r.broken ? [`${r.broken} broken`] : [])].join(", ") };
    const below = () => {
      const box = make("div", null, { class: "notes" });
      if (list.some(r => r.tdoubt || r.ddoubt || r.bdoubt)) box.append(make("p", "⚠ untrusted timing: shown, but in no mean and not in the gate; the remark says why."));
      if (list.some(r => r.tloose || r.dloose || r.bloose)) box.append(make("p", "~ timing that is not settled: its rounds ended before the interval of their median was narrow."));
      if (list.some(r => r.broken)) box.append(make("p", "Broken samples have no score and are left out of it."));
      if (places.length) {
        const items = make("ol");
        for (const place of places) { const count = list.filter(r => own(r).includes(place)).length; items.append(make("li", visible(`${data.remarks[place]} (${count} ${count === 1 ? "row" : "rows"})`), { dir: "auto" })); }
        const inner = places.length > 12 ? make("details") : box;
        if (inner !== box) { inner.append(make("summary", `${places.length} remarks`)); box.append(inner); }
        inner.append(items);
      }
      return box;
    };
    return { columns: places.length || list.some(r => r.broken) ? [column] : [], below };
  }
  // what limits each timing, a sentence each, in a fold of its own: it must make no row tall
  const FOLDED = 500;
  const limits = r => r.why.map(([place, ...numbers]) => data.reasons[place].replace(/#/g, () => numbers.shift()));
  function whys(list) {
    const those = list.filter(r => !lacks(r.why));
    if (!those.length) return [];
    const box = make("details", null, { class: "whys" }), shown = make("dl"), several = new Set(list.map(r => r.model)).size > 1;
    box.append(make("summary", "What limits each timing"), shown);
    box.addEventListener("toggle", () => {
      if (shown.childElementCount) return;
      for (const r of those.slice(0, FOLDED)) {
        shown.append(make("dt", visible([methodOf(r.setting), isDense(r.setting) ? "" : keepText(keepOf(r.setting)), several ? data.models[r.model] : ""].join(" ")), { dir: "auto" }));
        for (const text of limits(r)) shown.append(make("dd", visible(text), { dir: "auto" }));
      }
      if (those.length > FOLDED) shown.append(make("dd", `${those.length - FOLDED} more stand in report.json.`));
    });
    return [box];
  }
  function refuse(host, lead, words) {
    const found = words.flatMap(refusals);
    by(lead).textContent = found.length ? "This table was refused." : by(lead).textContent;
    if (found.length) by(host).replaceChildren(...found.map(one => make("p", visible(`⚠ ${one.reason}; select ${one.select}`), { class: "off" })));
    return found.length > 0;
  }

  // a composition has a budget for each of its methods
  const askedText = r => r.asked || keepText(r.asked_keep); // in its own words where it is no fraction
  const budgets = r => (lacks(r.parts) ? [r] : r.parts.map(([of, asked_keep, kept, total, asked, counted]) => changed(r, { of, asked_keep, kept, total, asked, counted, keep: total ? kept / total : 1 })));
  function results() {
    const at = choice();
    published(at);
    by("parts").hidden = true;
    if (at.task < 0) { overall(at); return; }
    const list = ordered(cells.filter(cell => inChoice(cell, at))), notes = remarked(list);
    by("results-lead").textContent = `Scores are ${data.metrics[at.task] || "the task’s metric"} on the benchmark’s scale; the brackets are 95 % intervals over samples.${data.sets[at.task] ? visible(` This task: ${data.sets[at.task]}.`) : ""}${power(list, r => r.scale, 1)}${judged("random")}${uncontrolled(list)}`;
    show("results-body", [
      ...methodColumns, ...modelColumn(at),
      ...(list.some(r => r.failed || !lacks(r.score)) ? scores(list) : []),
      ...againstRandom(list, r => r.scale, 1),
      ...timed(list),
      { head: "asked / kept", text: r => (lacks(r.asked_keep) ? "–" : budgets(r).map(b => `${askedText(b)} / ${num(b.asked ? b.counted : b.keep)}`).join(", ")), value: r => r.keep },
      ...notes.columns,
    ], list, "Results by cell");
    by("results-body").append(notes.below(), ...whys(list));
    byPart(at, list.filter(r => !lacks(r.reported)));
  }
  // what a benchmark reports beside its score: one column a part
  function byPart(at, list) {
    by("parts").hidden = !list.length;
    if (!list.length) return;
    const names = [...new Set(list.flatMap(r => r.reported.map(([place]) => place)))], of = (r, place) => r.reported.find(([other]) => other === place);
    show("parts-body", [
      ...methodColumns, ...modelColumn(at),
      ...names.map(place => ({ head: data.figures[place], value: r => of(r, place)?.[1], text: r => { const one = of(r, place); return one ? num(one[1], 1) + range(one[2], one[3], 1) : "–"; } })),
    ], list, "Scores by part");
  }
  // columns of scores only where there are scores
  const scores = list => [
    { head: "score", tone: r => (r.failed ? "wrong" : ""), text: r => (r.failed ? "failed" : num(scaled(r.score, r), 1)) + range(scaled(r.low, r), scaled(r.high, r), 1) + tooFew(r), value: r => r.score },
    { head: "n", text: r => String(r.n), value: r => r.n },
    ...(list.some(r => !lacks(r.invalid)) ? [{ head: "invalid", text: r => (lacks(r.invalid) ? "–" : `${num(100 * r.invalid, 1)} %`), value: r => r.invalid }] : []),
    { head: "OP ratio", text: r => num(r.ratio) + range(r.rlow, r.rhigh), value: r => r.ratio },
    { head: "better / worse, p, q", text: r => (lacks(r.p) ? "–" : `${r.better} / ${r.worse}, p ${small(r.p)}${lacks(r.q) ? "" : `, q ${small(r.q)}`}`), value: r => r.p },
  ];
  // columns of times only where there are times
  const timed = list => [
    ...speedColumns.filter((_, i) => list.some(r => !lacks(r[["ttft", "decode", "batch"][i]]))),
    ...[["TTFT ms", "ttft_s", 1000, 1, "t"], ["decode ms/token", "decode_ms_per_token", 1, 2, "d"]].filter(([, field]) => list.some(r => !lacks(r[field]))).map(([head, field, fold, digits, letter]) => (
      { head, text: r => (lacks(r[field]) ? "–" : num(r[field] * fold, digits) + mark(r, letter)), value: r => r[field], tone: r => (r[`${letter}doubt`] ? "off" : "") })),
  ];
  function overall(at) {
    const list = ordered(rows.filter(row => row.model === at.model)), sets = new Set(list.map(row => row.set));
    by("results-lead").textContent = (at.model < 0 ? "All models together: OP is defined for one model, so choose one to see it. " : "OP is the root mean square over tasks of score / dense score; dense is 1. ")
      + (sets.has("common") || !list.length ? "All settings are compared on the tasks that all of them have." : "No task is shared by all settings: each row stands on its own tasks and is not comparable with the others.") + (at.model < 0 ? "" : power(list, () => 1, 3)) + judged("random_op") + uncontrolled(list);
    if (!list.length && refuse("results-body", "results-lead", ["op", "oe"])) return;
    show("results-body", [
      ...methodColumns,
      ...(at.model < 0 ? [] : [{ head: "OP", text: r => num(r.op) + range(r.low, r.high), value: r => r.op }, { head: "plain mean", text: r => num(r.mean), value: r => r.mean }]),
      { head: "tasks", text: r => `${r.tasks ?? "–"}${setNote(r)}${r.undefined ? `, ${r.undefined} undefined` : ""}`, value: r => r.tasks },
      ...(at.model < 0 ? [] : againstRandom(list, () => 1, 3)),
      ...timed(list),
      { head: "cache kept", text: r => num(r.kv), value: r => r.kv },
    ], list, "Results by setting");
  }
  function published(at) {
    const host = by("published"), list = data.published.filter(one => (at.model < 0 || lacks(one.model) || one.model === data.models[at.model]) && (at.task < 0 || lacks(one.task) || one.task === data.tasks[at.task]));
    host.hidden = !list.length;
    if (!list.length) return;
    const setting = (one, other) => methodOf(other.setting) === one.method && keepOf(other.setting) === one.keep && (lacks(one.model) ? -1 : data.models.indexOf(one.model)) === other.model;
    const ours = one => {
      if (lacks(one.task)) return rows.find(row => setting(one, row))?.[one.of];
      const cell = cells.find(other => setting(one, other) && data.tasks[other.task] === one.task);
      return cell && (one.of === "score" ? scaled(cell.score, cell) : cell[one.of]);
    };
    table(by("published-body"), [
      { head: "method", kind: "head", text: r => r.method }, { head: "keep", text: r => keepText(r.keep), value: r => keepText(r.keep) },
      { head: "model", kind: "text", text: r => r.model || "all" }, { head: "task", kind: "text", text: r => r.task || "all" }, { head: "what", kind: "text", text: r => r.of.toUpperCase() },
      { head: "published", text: r => num(r.value, 2), value: r => r.value }, { head: "this run", text: r => num(ours(r), 2), value: ours },
      { head: "source", kind: "text", text: r => r.source },
    ], list, { name: "Published values", start: 20 });
  }

  const LETTERS = { ttft_s: "t", decode_ms_per_token: "d", batch_decode_ms_per_step: "b" };
  const ms = (field, fold = 1) => ({ text: r => (lacks(r[field]) ? "–" : num(r[field] * fold, 2) + (LETTERS[field] ? mark(r, LETTERS[field]) : "")), value: r => r[field] });
  const TIMES = [
    ["prompt tokens", "prompt_tokens", { text: r => r.prompt_tokens.toLocaleString("en"), value: r => r.prompt_tokens }],
    ["TTFT ms", "ttft_s", ms("ttft_s", 1000)], ["floor", "tfloor", ms("tfloor", 1000)], ["of it tower", "tower_s", ms("tower_s", 1000)], ["method", "method_s", ms("method_s", 1000)], ["prefill", "prefill_s", ms("prefill_s", 1000)], ["first token", "first_s", ms("first_s", 1000)], ["before it: pictures", "image_s", ms("image_s", 1000)],
    ["decode ms/token", "decode_ms_per_token", ms("decode_ms_per_token")], ["floor", "dfloor", ms("dfloor")],
    ["batch", "copies", { text: r => num(r.copies, 0), value: r => r.copies }], ["ms/step", "batch_decode_ms_per_step", ms("batch_decode_ms_per_step")], ["floor", "bfloor", ms("bfloor")], ["tokens/s", "batch_tokens_per_s", { text: r => num(r.batch_tokens_per_s, 0), value: r => r.batch_tokens_per_s }], ["largest batch", "largest_batch", { text: r => num(r.largest_batch, 0), value: r => r.largest_batch }],
    ["peak memory", "peak_memory_bytes", { text: r => bytes(r.peak_memory_bytes), value: r => r.peak_memory_bytes }], ["J to first token", "ttft_energy_j", ms("ttft_energy_j")], ["J/token", "decode_energy_j_per_token", ms("decode_energy_j_per_token")],
  ];
  function times() {
    const at = choice(), list = ordered(cells.filter(cell => inChoice(cell, at) && !(lacks(cell.ttft_s) && lacks(cell.decode_ms_per_token))));
    by("details").hidden = !list.length;
    if (!list.length) return;
    const known = TIMES.filter(([, field]) => list.some(r => !lacks(r[field]))).map(([head, field, column]) => ({ head, value: column.value, text: r => (lacks(r[field]) ? "–" : column.text(r)) }));
    show("details-body", [...methodColumns, ...modelColumn(at), ...taskColumn(at), ...known], list, "Times in detail", 20);
  }
  function evenness() {
    const at = choice(), list = ordered(rows.filter(row => row.model === at.model && (!lacks(row.og) || !lacks(row.ogm))));
    by("og-lead").textContent = "Deviation of score / dense score in percent of its mean: over tasks as published, and over models, which the published form averages away. Lower is more even.";
    if (!list.length) {
      if (refuse("og-body", "og-lead", ["og"])) return;
      by("og-body").replaceChildren(make("p", "OG needs at least two tasks (or two models) with a defined ratio for one setting.", { class: "lead" }));
      return;
    }
    show("og-body", [
      ...methodColumns,
      { head: "OG over tasks, %", text: r => num(r.og, 2) + range(r.oglow, r.oghigh, 2), value: r => r.og },
      { head: "tasks", text: r => (lacks(r.ogtasks) ? "–" : `${r.ogtasks}${setNote(r)}`), value: r => r.ogtasks },
      ...(list.some(r => !lacks(r.ogm)) ? [{ head: "OG over models, %", text: r => num(r.ogm, 2), value: r => r.ogm }, { head: "models", text: r => (lacks(r.ogmodels) ? "–" : String(r.ogmodels)), value: r => r.ogmodels }] : []),
    ], list, "OG");
  }

  function loyalty() {
    const at = choice(), one = at.task >= 0;
    const floors = new Map(cells.filter(cell => isDense(cell.setting) && !lacks(cell.noise)).map(cell => [`${cell.model} ${cell.task}`, data.noises[cell.noise]]));
    const floorOf = (r, field = "same") => (one ? floors.get(`${r.model} ${r.task}`)?.[field] ?? null : r.olnoise);
    const list = ordered(one ? cells.filter(cell => inChoice(cell, at) && !isDense(cell.setting) && [cell.same, cell.exact, cell.score_agreement, cell.soft, cell.prefix, cell.forced, cell.kl].some(v => !lacks(v))) : rows.filter(row => row.model === at.model && !lacks(row.ol)));
    const changes = [...new Set([...floors.values()].map(floor => floor.change).filter(Boolean))];
    by("ol-lead").textContent = `Share of samples answered as dense does, right or wrong. The noise floor is dense against dense${changes.length ? ` under a harmless change (${changes.join("; ")})` : ""}: a value at the floor cannot be told from no change at all.${one && floors.size ? " Brackets hold the floors of the other columns." : ""}${floors.size ? "" : " This run measured no noise floor."}`;
    if (!list.length && refuse("ol-body", "ol-lead", ["ol"])) return;
    const flips = list.some(r => r.flips), any = field => list.some(r => !lacks(r[field]));
    const optional = [["exact", "same text"], ["score_agreement", "score agreement"], ["soft", "ROUGE-L"], ["prefix", "same first tokens"], ["forced", "tokens, forced"], ["kappa", "kappa"]];
    show("ol-body", [
      ...methodColumns, ...(one ? modelColumn(at) : []),
      { head: "same as dense (OL)", text: r => (one ? num(r.same) : num(r.ol)) + range(r.ollow, r.olhigh), value: r => (one ? r.same : r.ol) },
      { head: "noise floor", text: r => num(floorOf(r)), value: r => floorOf(r) },
      { head: one ? "n" : "tasks", text: r => (one ? String(r.n) : `${r.oltasks}${setNote(r)}${r.free ? `, ${r.free} free-form left out` : ""}`), value: r => (one ? r.n : r.oltasks) },
      ...(one ? optional.filter(([field]) => any(field)).map(([field, head]) => ({ head, text: r => num(r[field]) + (lacks(floorOf(r, field)) ? "" : ` (${num(floorOf(r, field))})`), value: r => r[field] })) : []),
      ...(one && any("kl") ? [{ head: "KL, nats", text: r => nats(r.kl, r.kllow, r.klhigh, r.klrest), value: r => r.kl }] : []),
      ...(one && flips ? ["right → wrong", "wrong → right", "both right", "both wrong, same", "both wrong, different"].map((head, i) => ({ head, text: r => (r.flips ? String(r.flips[i]) : "–"), value: r => r.flips && r.flips[i] })) : []),
    ], list, "OL");
  }

  function layersOf(cell) {
    const [even, ...kept] = data.layers[cell.layers];
    if (even === undefined) return make("span", "–");
    if (!lacks(even)) return make("span", `${even} in each of ${kept[0]}`);
    const box = make("details"), most = Math.max(...kept, 1);
    box.append(make("summary", `${kept.map(v => BLOCKS[Math.min(7, Math.floor((8 * v) / most))]).join("")} ${Math.min(...kept)} to ${Math.max(...kept)}`), make("p", kept.map((v, i) => `layer ${i}: ${v}`).join("\n"), { class: "reason" }));
    return box;
  }
  function audit() {
    const at = choice(), missed = data.missed.filter(cell => inChoice(cell, at)).map(cell => ({ ...cell, failed: true }));
    const list = [...ordered(cells.filter(cell => inChoice(cell, at) && !lacks(cell.asked_keep) && !isDense(cell.setting))).flatMap(budgets), ...missed];
    const apart = r => Math.abs(r.keep - r.asked_keep);
    const off = r => apart(r) > Math.min(0.01, 0.1 * r.asked_keep);
    table(by("audit-body"), [
      ...methodColumns, ...modelColumn(at), ...taskColumn(at),
      { head: "of", kind: "text", text: r => data.kinds[r.of] },
      { head: "asked", text: askedText, value: r => r.asked_keep },
      { head: "kept", text: r => num(r.asked ? r.counted : r.keep, 4), value: r => r.keep },
      { head: "", kind: "text", text: r => (r.failed ? "failed" : off(r) ? "off" : ""), tone: r => (r.failed ? "wrong" : off(r) ? "off" : "") },
      { head: "kept / all", text: r => `${r.kept.toLocaleString("en")} / ${r.total.toLocaleString("en")}`, value: r => r.kept },
      { head: "kept by layer", kind: "text", text: layersOf, value: r => Math.max(...data.layers[r.layers].filter(v => !lacks(v)), 0) },
      { head: "cache", text: r => bytes(r.kv_bytes || null), value: r => r.kv_bytes },
      { head: "dense cache", text: r => bytes(r.kv_bytes_dense || null), value: r => r.kv_bytes_dense },
    ], list.sort((a, b) => Boolean(b.failed) - Boolean(a.failed) || apart(b) - apart(a)), { name: "Budgets", start: 20 });
  }

  function unmeasured() {
    const host = by("unmeasured-body");
    if (!data.unmeasured.length) host.append(make("p", "Every selected cell was measured.", { class: "lead" }));
    for (const one of data.refused) {
      const box = make("article", null, { class: "card plain" }), inner = make("div");
      inner.append(make("h3", visible(`Refused table: ${one.table.toUpperCase()}`), { class: "off" }), make("p", visible(one.reason), { class: "reason", dir: "auto" }), make("p", visible(`Select: ${one.select}`), { class: "reason", dir: "auto" }));
      box.append(inner);
      host.append(box);
    }
    for (const one of data.unmeasured) {
      const box = make("article", null, { class: "card plain" }), inner = make("div"), list = make("details");
      inner.append(make("h3", `${one.status === "unsupported" ? "Skipped" : one.status === "failed" ? "Failed" : "Interrupted"}: ${one.count} ${one.count === 1 ? "case" : "cases"}`, { class: one.status === "unsupported" ? "" : "wrong" }), report.long(visible(one.reason || "no reason was recorded"), "reason", "Reason"));
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
    // each table and chart in a task of its own, so that the page answers in between
    const tables = [results, times, evenness, loyalty, viewer.restart, audit, ...sections.all], draw = () => inTurn([...tables, () => performance.mark("ready"), ...charts.all, () => performance.mark("drawn")]);
    for (const id of ["model", "task"]) by(id).addEventListener("change", draw);
    inTurn([charts.start, viewer.start, unmeasured]);
    draw();
  }
  start();
})();
