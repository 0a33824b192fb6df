"use strict";
// SVG by hand: elements, scales, ticks, numbers. Text is only ever set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element; null among attributes and children is left out. */
function svg(name, attributes = {}, ...children) {
  return built(document.createElementNS(SVG, name), attributes, children);
}

/** An HTML element, alike. */
function html(name, attributes = {}, ...children) {
  return built(document.createElement(name), attributes, children);
}

function built(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A linear map from values to pixels. */
function scale([low, high], [start, end]) {
  const slope = (end - start) / (high - low);
  return (value) => start + slope * (value - low);
}

/** The least and the largest finite number, a share of their distance added at both ends. */
function extent(numbers, margin = 0) {
  const finite = numbers.filter(Number.isFinite);
  if (finite.length === 0) return [0, 1];
  const low = finite.reduce((a, b) => Math.min(a, b));
  const high = finite.reduce((a, b) => Math.max(a, b));
  const room = (high - low || Math.abs(high) || 1) * margin || (high === low ? 0.5 : 0);
  return [low - room, high + room];
}

/** Round numbers from low to high, about `count` of them: steps of 1, 2 or 5 times a power of 10. */
function ticks([low, high], count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

/** A number in few characters: 60k, 2.5M, 0.05. */
function short(number) {
  if (number === null || !Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  for (const [unit, sign] of [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= unit * 0.9995) {
      const divisor = sign === "k" ? 1e3 : unit;
      return minus(String(Number((number / divisor).toPrecision(3)))) + sign;
    }
  }
  if (size !== 0 && size < 1e-3) return minus(number.toExponential(1));
  return minus(String(Number(number.toPrecision(3))));
}

function percent(share) {
  if (share === null || !Number.isFinite(share)) return "–";
  return minus(`${share > 0 ? "+" : ""}${Math.round(share * 100)}%`);
}

function minus(text) {
  return text.replace("-", "−");
}

/** The path through points; a missing number interrupts it. */
function line(xs, ys, x, y) {
  let path = "";
  let pen = "M";
  for (let i = 0; i < xs.length; i++) {
    if (ys[i] === null || xs[i] === null) {
      pen = "M";
    } else {
      path += `${pen}${x(xs[i]).toFixed(1)} ${y(ys[i]).toFixed(1)}`;
      pen = "L";
    }
  }
  return path;
}

/** The outline of a band between two curves; where either is missing, it is interrupted. */
function band(xs, lows, highs, x, y) {
  const stretches = [[]];
  xs.forEach((_, i) => {
    if (lows[i] === null || highs[i] === null) stretches.push([]);
    else stretches[stretches.length - 1].push(i);
  });
  const at = (i, ys) => `${x(xs[i]).toFixed(1)} ${y(ys[i]).toFixed(1)}`;
  return stretches
    .filter((known) => known.length > 1)
    .map((known) => {
      const there = known.map((i) => at(i, highs));
      const back = known.reverse().map((i) => at(i, lows));
      return `M${there.join("L")}L${back.join("L")}Z`;
    })
    .join("");
}

let clips = 0;

/**
 * A drawing area with a grid: { root, plot, x, y, box }. `plot` is clipped to the box.
 * `titles`: what stands at the axes; `written`: how their numbers are written.
 */
function frame({ width, height, xs, ys, titles = {}, written = {}, room = {}, grid = "xy" }) {
  const box = { left: 44, right: 10, top: 8, bottom: titles.x ? 38 : 22, ...room };
  const right = width - box.right;
  const bottom = height - box.bottom;
  const x = scale(xs, [box.left, right]);
  const y = scale(ys, [bottom, box.top]);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "drawing", "aria-hidden": "true" });
  const lines = svg("g", { class: "grid" });
  const words = svg("g", { class: "words" });
  for (const value of ticks(xs, Math.max(3, Math.floor((right - box.left) / 80)))) {
    if (grid.includes("x")) {
      lines.append(svg("line", { x1: x(value), x2: x(value), y1: box.top, y2: bottom }));
    }
    const anchor = x(value) > width - 18 ? "end" : "middle";
    const place = { x: anchor === "end" ? width - 1 : x(value), y: bottom + 14, "text-anchor": anchor };
    words.append(svg("text", place, (written.x || short)(value)));
  }
  if (grid.includes("y")) {
    for (const value of ticks(ys, Math.max(2, Math.floor((bottom - box.top) / 45)))) {
      lines.append(svg("line", { x1: box.left, x2: right, y1: y(value), y2: y(value) }));
      words.append(
        svg("text", { x: box.left - 5, y: y(value) + 3.5, "text-anchor": "end" }, (written.y || short)(value)),
      );
    }
  }
  if (titles.x) {
    words.append(svg("text", { x: right, y: height - 6, "text-anchor": "end", class: "title" }, titles.x));
  }
  if (titles.y) words.append(svg("text", { x: 2, y: box.top + 2, class: "title" }, titles.y));
  const clip = `clip${clips++}`;
  const area = { x: box.left, y: box.top, width: right - box.left, height: bottom - box.top };
  const plot = svg("g", { "clip-path": `url(#${clip})` });
  root.append(svg("clipPath", { id: clip }, svg("rect", area)), lines, words, plot);
  return { root, plot, x, y, box: { left: box.left, right, top: box.top, bottom } };
}
