"use strict";
// The sample viewer: question, both answers, and the picture with the visual tokens that were kept.
const viewer = (() => {
  const { data, by, lacks, make, num, budgetText, visible, long, options, button, choice, label } = report;
  const samples = JSON.parse(by("samples").textContent);
  const SHOWN = 6, WIDTH = 480;
  const FLIPS = { right_to_wrong: "right → wrong", wrong_to_right: "wrong → right", both_right: "both right", both_wrong_same: "both wrong, same answer", both_wrong_different: "both wrong, different answers" };
  const settingOf = one => `${one.method}@${one.preset} ${one.keep}`;
  const settingText = one => `${label(one.method, one.preset)}, ${budgetText(one.keep)}`;
  let first = 0;

  const direction = one => (lacks(one.dense.score) || lacks(one.compressed.score) ? 0 : Math.sign(one.compressed.score - one.dense.score));
  const KINDS = {
    changed: ["any change", one => !one.same], fell: ["score fell", one => !one.same && direction(one) < 0], rose: ["score rose", one => !one.same && direction(one) > 0],
    ...Object.fromEntries(["right_to_wrong", "wrong_to_right", "both_right", "both_wrong_different"].map(flip => [flip, [`changed: ${FLIPS[flip]}`, one => !one.same && one.flip === flip]])),
    kept: ["changed, kept tokens stored", one => !one.same && one.kept], same: ["answer unchanged", one => one.same],
  };

  // How `count` tiles lie in a picture: the rows and columns whose shape is nearest to the picture's.
  function tiling(count, ratio) {
    const pairs = Array.from({ length: count }, (_, i) => [i + 1, count / (i + 1)]).filter(([, columns]) => Number.isInteger(columns));
    return pairs.reduce((best, pair) => (Math.abs(Math.log(pair[1] / pair[0] / ratio)) < Math.abs(Math.log(best[1] / best[0] / ratio)) ? pair : best));
  }
  // One board for every grid of tokens: where its bits begin, which picture it lies on, and on which part of it.
  // Several blocks of one picture are its tiles and then the whole; two are the whole at two sizes.
  function boards(one, shapes) {
    const found = [], { grid, shows } = one.kept;
    let start = 0;
    grid.forEach(([blocks, rows, columns], entry) => {
      const [from, count] = shows[entry];
      for (let block = 0; block < blocks; block++, start += rows * columns) {
        const picture = count > 1 ? from + Math.floor((block * count) / blocks) : from, board = { start, rows, columns, picture, area: [0, 0, 1, 1], tile: "" };
        if (count === 1 && blocks > 2 && block < blocks - 1) {
          const [high, wide] = tiling(blocks - 1, shapes[picture] || 1);
          board.area = [(block % wide) / wide, Math.floor(block / wide) / high, 1 / wide, 1 / high];
          board.tile = `tile ${block + 1} of ${blocks - 1}`;
        }
        found.push(board);
      }
    });
    return found;
  }
  function bitsOf(place) {
    const raw = atob(samples.masks[place]);
    return at => (raw.charCodeAt(at >> 3) >> (7 - (at & 7))) & 1;
  }
  function hatch(context) {
    const tile = make("canvas", null, { width: 6, height: 6 }), pen = tile.getContext("2d");
    pen.fillStyle = "rgba(70, 76, 84, .82)";
    pen.fillRect(0, 0, 6, 6);
    pen.strokeStyle = "rgba(255, 255, 255, .28)";
    pen.beginPath(); pen.moveTo(-1, 7); pen.lineTo(7, -1); pen.stroke();
    return context.createPattern(tile, "repeat");
  }
  function paint(canvas, image, board, bits) {
    const context = canvas.getContext("2d"), [left, top, width, height] = board.area, ratio = image ? image.naturalHeight / image.naturalWidth : board.rows / board.columns;
    canvas.width = WIDTH;
    canvas.height = Math.round(WIDTH * ratio);
    if (image) context.drawImage(image, 0, 0, canvas.width, canvas.height);
    else { context.fillStyle = "#e8eaed"; context.fillRect(0, 0, canvas.width, canvas.height); }
    if (!bits) return;
    const across = i => Math.round(canvas.width * (left + (width * i) / board.columns)), down = i => Math.round(canvas.height * (top + (height * i) / board.rows));
    context.fillStyle = hatch(context);
    for (let r = 0; r < board.rows; r++) for (let c = 0; c < board.columns; c++) {
      if (!bits(board.start + r * board.columns + c)) context.fillRect(across(c), down(r), across(c + 1) - across(c), down(r + 1) - down(r));
    }
    context.strokeStyle = "#d2541b";
    context.lineWidth = 4;
    if (board.tile) context.strokeRect(across(0) + 2, down(0) + 2, across(board.columns) - across(0) - 4, down(board.rows) - down(0) - 4);
  }
  function count(board, bits) {
    let kept = 0;
    for (let i = 0; i < board.rows * board.columns; i++) kept += bits(board.start + i);
    return kept;
  }
  const spanText = span => (span.includes("-") ? `layers ${span.replace("-", " to ")}` : `layer ${span}`);

  function picture(one) {
    const host = make("figure"), canvas = make("canvas", null, { role: "img" }), caption = make("figcaption", null, { "aria-live": "polite" }), controls = make("div", null, { class: "controls" });
    const layers = one.kept ? [...one.kept.layers].sort((a, b) => parseInt(a[0], 10) - parseInt(b[0], 10)) : [];
    const images = one.pictures.map(place => Object.assign(new Image(), { src: samples.pictures[place] }));
    let parts = [{ picture: 0, rows: 1, columns: 1, area: [0, 0, 1, 1] }], part = 0, layer = Math.max(0, layers.length - 1), on = layers.length > 0; // deep layers keep least
    function show() {
      const board = parts[part], image = images[board.picture], bits = layers.length ? bitsOf(layers[layer][1]) : null;
      paint(canvas, image && image.naturalWidth ? image : null, board, on ? bits : null);
      caption.textContent = [bits && `${count(board, bits)} of ${board.rows * board.columns} visual tokens kept, ${spanText(layers[layer][0])}`, board.tile, on && bits && "hatched cells were dropped"].filter(Boolean).join("; ");
      canvas.setAttribute("aria-label", `Picture ${board.picture + 1} of sample ${one.sample}. ${caption.textContent}`);
    }
    function choose(name, control) {
      const box = make("label", `${name} `);
      box.append(control);
      controls.append(box);
    }
    function ready() {
      const shapes = images.map(image => (image.naturalWidth || 1) / (image.naturalHeight || 1));
      parts = one.kept ? boards(one, shapes) : images.map((_, i) => ({ ...parts[0], picture: i }));
      if (layers.length) controls.append(button("Kept tokens", made => { on = !on; made.setAttribute("aria-pressed", String(on)); show(); }, { "aria-pressed": "true", class: "overlay" }));
      if (layers.length > 1) {
        const slider = make("input", null, { type: "range", min: 0, max: layers.length - 1, value: layer, step: 1 }), say = () => slider.setAttribute("aria-valuetext", spanText(layers[layer][0]));
        slider.addEventListener("input", () => { layer = Number(slider.value); say(); show(); });
        say();
        choose("Layers", slider);
      }
      if (parts.length > 1) {
        const select = make("select"), alone = board => parts.filter(other => other.picture === board.picture).length === 1;
        options(select, parts.map((board, i) => [i, `${board.picture + 1} of ${Math.max(images.length, 1)}${board.tile ? `, ${board.tile}` : alone(board) ? "" : `, ${board.rows} × ${board.columns} tokens`}`]));
        select.addEventListener("change", () => { part = Number(select.value); show(); });
        choose("Picture", select);
      }
      show();
    }
    host.append(canvas, caption, controls);
    Promise.allSettled(images.map(image => image.decode())).then(ready);
    return host;
  }

  function card(one) {
    const turn = direction(one), drawn = one.pictures.length || one.kept;
    const made = make("article", null, { class: drawn ? "card" : "card plain" }), text = make("div"), pair = make("div", null, { class: "pair" });
    if (drawn) made.append(picture(one));
    text.append(make("h3", visible(`${settingText(one)} · ${one.task} · ${one.model}`)), make("small", visible(`sample ${one.sample}`)));
    text.append(one.prompt ? long(visible(one.prompt), "prompt", "Question") : make("p", `The question was not stored (sha256 ${one.prompt_sha256.slice(0, 12)}…).`, { class: "lead" }));
    if (one.references.length) text.append(make("small", visible(`accepted: ${one.references.join(" | ")}`)));
    for (const [name, side] of [["dense", one.dense], ["compressed", one.compressed]]) {
      const box = make("div"), tone = name === "dense" || !turn ? "" : turn < 0 ? "wrong" : "right";
      box.append(make("small", `${name}, score ${num(side.score, 2)}`), make("span", tone === "wrong" ? "  ↓ worse" : tone === "right" ? "  ↑ better" : "", { class: tone }), long(side.text ? visible(side.text) : "(empty answer)", "answer", `Answer, ${name}`));
      pair.append(box);
    }
    const notes = [FLIPS[one.flip] || "", lacks(one.prefix_tokens) ? "" : `first ${one.prefix_tokens} of ${one.dense_tokens} tokens alike`, lacks(one.forced) ? "" : `${num(100 * one.forced, 0)} % of tokens alike when dense’s own are fed`].filter(Boolean);
    text.append(pair, make("p", notes.join(" · "), { class: "notes" }));
    made.append(text);
    return made;
  }

  function show() {
    const at = choice(), setting = by("changed-setting").value, kind = KINDS[by("changed-kind").value][1], host = by("changed-body");
    const list = samples.shown.filter(one => (at.model < 0 || one.model === data.models[at.model]) && (at.task < 0 || one.task === data.tasks[at.task]) && (!setting || settingOf(one) === setting) && kind(one));
    const held = samples.shown.filter(one => !one.same).length;
    first = Math.max(0, Math.min(first, list.length - 1));
    by("changed-lead").textContent = `${samples.total.toLocaleString("en")} answers of this run differ from dense; ${samples.total > held ? `this page holds ${held.toLocaleString("en")} of them, taken in turn from every cell, the largest changes of score first` : "all are here"}. ${list.length.toLocaleString("en")} match the choice.${samples.left_out ? ` The pictures of ${samples.left_out.toLocaleString("en")} were left out to keep the page small.` : ""}`;
    host.replaceChildren();
    for (const one of list.slice(first, first + SHOWN)) host.append(card(one));
    if (list.length <= SHOWN) return;
    const more = make("div", null, { class: "more" });
    for (const [text, step] of [["Previous", -SHOWN], ["Next", SHOWN]]) {
      const made = button(text, () => { first = Math.max(0, first + step); show(); by("h-changed").focus(); by("changed").scrollIntoView(); });
      made.disabled = (step < 0 && first === 0) || first + step >= list.length;
      more.append(made);
    }
    more.append(make("span", `${first + 1} to ${Math.min(list.length, first + SHOWN)} of ${list.length}`));
    host.append(more);
  }
  function restart() { first = 0; show(); }
  function start() {
    options(by("changed-kind"), Object.entries(KINDS).map(([key, [text]]) => [key, text]));
    const known = new Map(samples.shown.map(one => [settingOf(one), settingText(one)]));
    options(by("changed-setting"), [["", "all settings"], ...[...known].sort((a, b) => (a[1] < b[1] ? -1 : 1))]);
    for (const id of ["changed-setting", "changed-kind"]) by(id).addEventListener("change", restart);
  }
  return { start, restart };
})();
