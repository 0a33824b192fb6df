"use strict";
// Reading values off a drawing: by pointer, by finger, by arrow keys, by ear.

/**
 * Lets the reader move among `stops`, pixels across the drawing in ascending order.
 * `show(i)` marks stop i and returns { title, rows: [[colour, name, value]] }; `hide()` clears it.
 * To a screen reader the drawing is a slider whose value is that text.
 */
function explore(panel, drawing, stops, show, hide) {
  if (stops.length === 0) return;
  const tip = html("div", { class: "tip", hidden: "", "aria-hidden": "true" });
  panel.append(tip);
  let chosen = -1;

  function choose(i) {
    if (i === chosen) return;
    chosen = i;
    const said = show(i);
    tip.replaceChildren(html("b", {}, said.title), ...said.rows.map(tipRow));
    tip.hidden = false;
    tip.style.left = `${beside(stops[i])}px`;
    panel.setAttribute("aria-valuenow", i);
    panel.setAttribute("aria-valuetext", spoken(said));
  }

  /** Where the tip stands beside a stop: to the right if the window has room there. */
  function beside(stop) {
    const drawn = drawing.getBoundingClientRect();
    const at = (stop / drawing.viewBox.baseVal.width) * drawn.width;
    const room = document.documentElement.clientWidth - drawn.left - 4;
    const right = at + 12;
    return right + tip.offsetWidth <= room ? right : Math.max(at - 12 - tip.offsetWidth, 4 - drawn.left);
  }

  function clear() {
    chosen = -1;
    tip.hidden = true;
    hide();
  }

  function point(event) {
    const drawn = drawing.getBoundingClientRect();
    const across = ((event.clientX - drawn.left) / drawn.width) * drawing.viewBox.baseVal.width;
    choose(nearest(stops, across));
  }

  const keys = {
    ArrowLeft: () => Math.max(chosen - 1, 0),
    ArrowDown: () => Math.max(chosen - 1, 0),
    ArrowRight: () => Math.min(chosen + 1, stops.length - 1),
    ArrowUp: () => Math.min(chosen + 1, stops.length - 1),
    PageDown: () => Math.max(chosen - 5, 0),
    PageUp: () => Math.min(chosen + 5, stops.length - 1),
    Home: () => 0,
    End: () => stops.length - 1,
  };
  for (const [name, value] of Object.entries({
    role: "slider",
    tabindex: 0,
    "aria-valuemin": 0,
    "aria-valuemax": stops.length - 1,
    "aria-valuenow": 0,
    "aria-valuetext": "arrow keys read the values",
  })) {
    panel.setAttribute(name, value);
  }
  drawing.addEventListener("pointermove", point);
  drawing.addEventListener("pointerdown", point);
  // A lifted finger leaves what it chose in sight, until something else is touched.
  drawing.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && clear());
  panel.onblur = clear;
  panel.onkeydown = (event) => {
    if (event.key === "Escape") clear();
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    choose(keys[event.key]());
  };
}

function tipRow([colour, name, value]) {
  const key = html("i", { class: `key ${colour}` });
  return html("span", {}, key, html("span", {}, name), html("span", { class: "value" }, value));
}

function spoken({ title, rows }) {
  return [title, ...rows.map(([, name, value]) => `${name} ${value}`.trim())].join("; ");
}

/** Which of ascending numbers lies nearest to `wanted`. */
function nearest(numbers, wanted) {
  let best = 0;
  numbers.forEach((number, i) => {
    if (Math.abs(number - wanted) < Math.abs(numbers[best] - wanted)) best = i;
  });
  return best;
}
