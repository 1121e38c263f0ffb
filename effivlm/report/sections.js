"use strict";
// Sections that only some runs have: each is hidden, with its link, where there is nothing to show.
const sections = (() => {
  const { data, asides, label, by, lacks, make, num, range, nats, keepText, bytes, visible, table, choice } = report;
  const named = r => label(r.method, r.preset);
  const inModel = (r, at) => at.model < 0 || r.model === data.models[at.model];
  const several = at => (at.model < 0 && data.models.length > 1 ? [{ head: "model", kind: "text", text: r => r.model }] : []);
  const ownSet = found => (found.set === "own" ? " (own)" : "");
  const share = (value, of) => (lacks(value) ? "–" : `${bytes(value)}${of ? ` (${num((100 * value) / of, 0)} %)` : ""}`);
  const seconds = value => (value < 120 ? `${num(value, 0)} s` : `${num(value / 60, 1)} min`);
  const notes = lines => {
    const box = make("div", null, { class: "notes" });
    for (const line of lines) box.append(make("p", visible(line), { dir: "auto" }));
    return box;
  };

  function section(id, list, show) {
    by(id).hidden = !asides[id].length;
    document.querySelector(`nav a[href="#${id}"]`).hidden = !asides[id].length;
    if (asides[id].length) show(by(`${id}-body`), list);
  }

  const ofTask = name => [
    { head: "score", text: r => { const t = r.by_task[name]; return num(t.score === null ? null : t.score * t.scale, 1) + range(...(t.interval || [null, null]).map(v => (lacks(v) ? null : v * t.scale)), 1); }, value: r => r.by_task[name].score },
    { head: "OP ratio", text: r => num(r.by_task[name].ratio) + range(...(r.by_task[name].ratio_interval || [null, null])), value: r => r.by_task[name].ratio },
    { head: "same as dense", text: r => num(r.by_task[name].same) + range(...(r.by_task[name].same_interval || [null, null])), value: r => r.by_task[name].same },
    { head: "tokens, forced", text: r => num(r.by_task[name].forced), value: r => r.by_task[name].forced },
    { head: "KL, nats", text: r => { const kl = r.by_task[name].kl; return kl ? nats(kl.value, ...(kl.interval || [null, null]), kl.rest) : "–"; }, value: r => r.by_task[name].kl?.value },
  ];
  const overTasks = [
    { head: "OP", text: r => (r.op ? num(r.op.value) + range(...(r.op.interval || [null, null])) : "–"), value: r => r.op?.value },
    { head: "tasks", text: r => (r.op ? `${r.op.n}${ownSet(r.op)}` : "–"), value: r => r.op?.n },
    { head: "same as dense (OL)", text: r => (r.ol ? num(r.ol.value) + range(...(r.ol.interval || [null, null])) : "–"), value: r => r.ol?.value },
    { head: "tokens, forced", text: r => num(r.forced), value: r => r.forced },
    { head: "KL, nats", text: r => nats(r.kl), value: r => r.kl },
  ];
  // speed-ups that were measured: over tasks without the untrusted ones, of one task with their mark
  const faster = (list, name) => [["ttft", "TTFT ×"], ["decode", "decode ×"], ["batch", "batch ×"]].map(([word, head]) => {
    const of = r => (name ? r.by_task[name].speedups[word] : r.oe[word]);
    return { word, head, value: r => of(r)?.value, text: r => { const found = of(r); return found ? num(found.value, 2) + range(...(found.interval || [null, null]), 2) + (name && r.by_task[name].untrusted.includes(word) ? " ⚠" : "") : "–"; } };
  }).filter(column => list.some(r => !lacks(column.value(r))));
  const made = (head, text, value = text, kind) => ({ head, kind, text: r => (r.product ? text(r.product) : "–"), value: r => (r.product ? value(r.product) : null) });
  function parameters() {
    const at = choice(), name = at.task < 0 ? "" : data.tasks[at.task];
    const list = asides.parameters.filter(r => inModel(r, at) && (!name || r.by_task[name]));
    section("parameters", list, host => {
      const who = [{ head: "method", kind: "head", text: named }, { head: "asked", text: r => r.asked, value: r => asides.parameters.indexOf(r) }, ...several(at), { head: "counted", text: r => num(r.counted), value: r => r.counted }];
      const of = { section: r => (r.unit === "bits a weight" ? "quantised: bits a weight" : "pruned: fraction of zeros") };
      const quality = make("div"), stored = make("div"), said = new Map();
      table(quality, [...who, ...(name ? ofTask(name) : overTasks), ...faster(list, name)], list, { ...of, name: "Quality of parameter compression" });
      table(stored, [
        ...who.slice(0, -1),
        made("on disk", p => share(p.disk_bytes, p.disk_bytes_dense), p => p.disk_bytes), made("in memory", p => share(p.memory_bytes, p.memory_bytes_dense), p => p.memory_bytes),
        made("read by", p => p.reading, p => p.reading, "text"),
        made("calibration", p => (p.samples ? `${p.calibration}, ${p.samples} samples, ${p.tokens} tokens` : "none"), p => p.samples, "text"), made("drawn", p => p.drawn.slice(0, 8) || "–", p => p.drawn, "text"), made("made in", p => seconds(p.seconds), p => p.seconds),
      ], list, { ...of, name: "What parameter compression stored" });
      for (const r of list) if (r.speed) said.set(r.speed, [...new Set([...(said.get(r.speed) || []), keepText(r.keep)])]);
      const told = [...said].map(([text, asked]) => `${asked.join(", ")}: ${text}.`);
      if (faster(list, name).length && told.some(text => text.includes("no speed-up"))) told.push("Where nothing is read faster, times unlike dense’s show how far the times of this machine vary.");
      host.replaceChildren(quality, make("h3", "What is stored, and how it was made"), stored, notes(told));
    });
  }

  const TONES = { "loses more": "wrong", "loses less": "right" };
  function compositions() {
    const at = choice(), over = at.task < 0 && asides.compositions.some(r => r.over === "tasks" && inModel(r, at));
    const list = asides.compositions.filter(r => inModel(r, at) && (over ? r.over === "tasks" : r.over === "task" && (at.task < 0 || r.tasks[0] === data.tasks[at.task])));
    const power = list.map(r => r.detectable).filter(v => !lacks(v)).sort((a, b) => a - b), alone = one => `${named(one)} ${keepText(one.keep)}: ${num(one.value)}`;
    const scaled = (r, value, digits) => num(lacks(value) ? null : value * r.scale, digits), digits = over ? 3 : 1;
    section("compositions", list, host => {
      const box = make("div");
      table(box, [
        { head: "composition", kind: "head", text: named }, { head: "keep", text: r => keepText(r.keep), value: r => keepText(r.keep) }, ...several(at),
        ...(over || at.task >= 0 ? [] : [{ head: "task", kind: "text", text: r => r.tasks[0] }]),
        { head: "methods alone", kind: "text", text: r => r.parts.map(alone).join(", ") },
        { head: "expected", text: r => num(r.expected), value: r => r.expected },
        { head: over ? "OP" : "OP ratio", text: r => num(r.value) + range(...(r.value_interval || [null, null])), value: r => r.value },
        { head: over ? "beyond, OP" : "beyond, score", value: r => r.difference, tone: r => TONES[r.verdict] || "", text: r => (lacks(r.difference) ? r.verdict : `${report.signed(r.difference * r.scale, digits)}${range(...(r.interval || [null, null]).map(v => (lacks(v) ? null : v * r.scale)), digits)} ${r.verdict}`) },
        { head: "q", text: r => (lacks(r.q) ? "–" : r.q < 0.001 ? "< 0.001" : num(r.q)), value: r => r.q },
        { head: over ? "tasks" : "n", text: r => String(r.n), value: r => r.n },
      ], list, { name: "Compositions" });
      const lines = [];
      if (power.length) lines.push(`With their samples, rows show a “beyond” of ${scaled(list[0], power[Math.floor(power.length / 2)], digits)} four times in five, and seldom a smaller one (the median row).`);
      if (list.some(r => r.verdict === "not run alone")) lines.push("A method that did not run alone at the budget that it has in the composition (–) leaves nothing to compare with: select it at that budget too.");
      host.replaceChildren(box, notes(lines));
    });
  }

  // a suite's tasks are scored in several ways, each with a table
  function suites() {
    const at = choice(), list = asides.suites.filter(r => inModel(r, at)), of = r => `${r.suite}, scored by ${r.scored}`;
    const kind = r => { const setting = report.settingWith(named(r), r.keep), found = setting < 0 ? "" : report.kindOf(setting); return found ? report.heading(found) : ""; };
    section("suites", list, host => {
      host.replaceChildren();
      for (const title of new Set(list.map(of))) {
        const own = list.filter(r => of(r) === title).sort((a, b) => kind(b).localeCompare(kind(a))), box = make("div"), first = own[0];
        const tasks = [...new Set(own.flatMap(r => r.tasks))];
        host.append(make("h3", visible(`${title}: ${tasks.length} of ${first.of} tasks`)), box);
        table(box, [
          { head: "method", kind: "head", text: named }, { head: "keep", text: r => keepText(r.keep), value: r => keepText(r.keep) }, ...several(at),
          { head: "OP", text: r => num(r.value) + range(...(r.interval || [null, null])), value: r => r.value }, { head: "plain mean", text: r => num(r.mean), value: r => r.mean },
          { head: "tasks", text: r => `${r.n} of ${r.of}${ownSet(r)}${r.undefined ? `, ${r.undefined} undefined` : ""}`, value: r => r.n },
        ], own, { name: title, start: 20, section: kind });
        const shared = own.find(r => r.set === "common")?.tasks || [], more = tasks.filter(task => !shared.includes(task));
        host.append(notes([...(shared.length ? [`Compared on: ${shared.join(", ")}.`] : []), ...(more.length ? [`Rows marked “own” also have: ${more.join(", ")}.`] : []), ...(first.missing.length ? [`Not run: ${first.missing.join(", ")}.`] : [])]));
      }
    });
  }

  const percent = value => (lacks(value) ? "–" : `${num(100 * value, 0)} %`);
  const CLOSE = 40; // settings named under the table
  function judges() {
    const at = choice(), list = asides.judges.filter(r => inModel(r, at) && (at.task < 0 || r.task === data.tasks[at.task]));
    section("judges", list, host => {
      const box = make("div"), second = list.some(r => r.agreement);
      table(box, [
        { head: "task", kind: "head", text: r => r.task }, ...several(at), { head: "judge", kind: "text", text: r => r.judge }, { head: "says it is", kind: "text", text: r => r.models.join(", ") || "–" }, { head: "prompt", kind: "text", text: r => r.prompt_sha256.slice(0, 12) },
        { head: "marks missing", text: r => `${r.missing} of ${r.marks + r.missing}`, value: r => r.missing, tone: r => (r.missing ? "off" : "") },
        { head: "noise", text: r => (r.noise ? num(r.noise.spread * r.scale, 2) : "not measured"), value: r => r.noise && r.noise.spread }, { head: "askings", text: r => (r.noise ? `${r.noise.repeats} of ${r.noise.n} answers` : "–"), value: r => r.noise && r.noise.n },
        { head: "marks that change", text: r => percent(r.noise && r.noise.changed), value: r => r.noise && r.noise.changed },
        ...(second ? [{ head: "second judge", kind: "text", text: r => (r.agreement ? r.agreement.judge : "–") }, { head: "same mark", text: r => (r.agreement ? `${percent(r.agreement.same)} of ${r.agreement.n}` : "–"), value: r => r.agreement && r.agreement.same }] : []),
        { head: "pairs of cells within noise", text: r => (r.pairs ? `${r.pairs.within} of ${r.pairs.of}` : "–"), value: r => r.pairs && r.pairs.within },
      ], list, { name: "Judges", start: 20 });
      const close = r => r.within.slice(0, CLOSE).map(one => `${named(one)} ${keepText(one.keep)} (${report.signed(one.difference * r.scale, 2)})`).join(", ") + (r.within.length > CLOSE ? ` and ${r.within.length - CLOSE} more` : "");
      host.replaceChildren(box, notes(list.filter(r => r.within.length).map(r => `${r.task}${several(at).length ? ` on ${r.model}` : ""}: no further from dense than the judge’s noise, which says nothing: ${close(r)}.`)));
    });
  }

  return { all: [parameters, compositions, suites, judges] };
})();
