"use strict";
// What a reader points at in a chart, by pointer, finger or keyboard: a ring around the mark, its numbers beside it and said aloud.
const pointing = (() => {
  const { make } = report;
  const TOUCH = 2, MOST = 4, STEPS = { ArrowRight: 1, ArrowLeft: -1 }, GROUPS = { ArrowDown: 1, ArrowUp: -1 };

  const inside = ({ x, y, width, height }, px, py) => px >= x && px <= x + width && py >= y && py <= y + height;
  function nearest(spots, px, py, near) {
    let best = -1, least = near;
    for (const [i, spot] of spots.entries()) {
      const far = spot.box ? (inside(spot.box, px, py) ? 0 : Infinity) : Math.hypot(spot.x - px, spot.y - py);
      if (far < least) { best = i; least = far; }
    }
    return best;
  }
  // the next mark of the neighbouring line, row or bar: the one nearest across
  function across(spots, at, step) {
    const groups = [...new Set(spots.map(spot => spot.group))].sort((a, b) => a - b), next = groups[groups.indexOf(spots[at].group) + step];
    const found = spots.map((spot, i) => [i, spot]).filter(([, spot]) => spot.group === next);
    return found.length ? found.reduce((a, b) => (Math.abs(b[1].x - spots[at].x) < Math.abs(a[1].x - spots[at].x) ? b : a))[0] : at;
  }
  function moved(key, spots, at) {
    if (key in STEPS) return at < 0 ? 0 : Math.min(spots.length - 1, Math.max(0, at + STEPS[key]));
    if (key in GROUPS) return at < 0 ? 0 : across(spots, at, GROUPS[key]);
    return { Home: 0, End: spots.length - 1, Escape: -1 }[key];
  }
  function ringed(ring, spot) {
    const box = spot.box || { x: spot.x - 10, y: spot.y - 10, width: 20, height: 20 };
    for (const [key, value] of Object.entries({ ...box, rx: spot.box ? 2 : 10 })) ring.setAttribute(key, value);
  }

  // `spots` are the marks of the drawing `root`: {x, y, text, group, box?} in its pixels; `near` how far off one is still meant.
  function hold(host, root, spots, title, near) {
    const tip = make("div", null, { class: "tip", hidden: "", "aria-hidden": "true" }), said = make("div", null, { class: "unseen", role: "status" });
    const ring = plot.svg("rect", { class: "ring", visibility: "hidden" });
    let at = -1;
    root.append(ring);
    host.replaceChildren(root, tip, said);
    host.tabIndex = 0;
    host.setAttribute("aria-label", `${title}. Arrow keys read its ${spots.length} marks.`);
    function show(next, aloud) {
      at = next;
      tip.hidden = at < 0;
      ring.setAttribute("visibility", at < 0 ? "hidden" : "visible");
      if (at < 0) { said.textContent = ""; return; }
      const spot = spots[at], alike = spot.box ? [] : spots.filter(other => other !== spot && Math.hypot(other.x - spot.x, other.y - spot.y) <= TOUCH), told = [spot, ...alike.slice(0, MOST - 1)].map(one => one.text);
      tip.textContent = [...told, ...(alike.length >= MOST ? [`and ${alike.length + 1 - MOST} more here`] : [])].join("\n\n");
      if (aloud) said.textContent = tip.textContent;
      ringed(ring, spot);
      const right = Math.min(spot.x + 14, host.clientWidth - tip.offsetWidth - 2), above = spot.y - tip.offsetHeight - 14;
      tip.style.left = `${Math.max(0, right)}px`;
      tip.style.top = `${above < 0 ? spot.y + 16 : above}px`;
    }
    const point = event => { const box = root.getBoundingClientRect(), next = nearest(spots, event.clientX - box.left, event.clientY - box.top, near); if (next !== at) show(next, false); };
    root.addEventListener("pointermove", point);
    root.addEventListener("pointerdown", point);
    root.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") show(-1, false); });
    host.onblur = () => show(-1, false);
    host.onkeydown = event => {
      const next = moved(event.key, spots, at);
      if (next === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      show(next, true);
    };
  }
  return { hold };
})();
