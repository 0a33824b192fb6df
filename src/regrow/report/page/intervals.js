"use strict";
// Estimates with their intervals, one below the other: gains per game, arms beside `nothing`.

const NARROW = 520; // pixels; below, a label stands above its interval

/** Draws rows of { label, arm, estimate, low, high, mark }; a row without estimate is a heading. */
function drawIntervals(panel, data, view, width) {
  const rows = data.rows.filter((row) => row.arm === null || !view.hidden.has(row.arm));
  const narrow = width < NARROW;
  const step = narrow ? 36 : 22;
  const written = data.unit === "share" ? percent : short;
  const longest = Math.max(0, ...rows.map((row) => row.label.length));
  const left = narrow ? 8 : Math.min(width * 0.36, 14 + longest * 6.6);
  const xs = domain(rows, data.marks);
  const height = rows.length * step + 46;
  const { root, plot, x, box } = frame({
    width,
    height,
    xs,
    ys: [0, 1],
    grid: "x",
    titles: { x: data.title },
    written: { x: written },
    room: { left, right: narrow ? 8 : 150, top: 4 },
  });
  for (const { at, name } of data.marks) {
    plot.append(svg("line", { class: at === 0 ? "zero" : "smallest", x1: x(at), x2: x(at), y1: box.top, y2: box.bottom }, svg("title", {}, name)));
  }
  rows.forEach((row, i) => {
    const top = box.top + i * step;
    const middle = top + (narrow ? 25 : step / 2);
    const words = top + (narrow ? 14 : step / 2 + 4);
    const heading = row.estimate === undefined;
    const label = cut(row.label, narrow ? width * 0.55 : left - 8);
    const place = narrow || heading ? { x: narrow ? 2 : 0 } : { x: left - 8, "text-anchor": "end" };
    root.append(svg("text", { ...place, y: words, class: heading ? "heading" : "label" }, label, svg("title", {}, row.label)));
    if (heading) return;
    root.append(svg("text", { x: width - 2, y: words, "text-anchor": "end", class: "value" }, interval(row, written)));
    if (row.estimate !== null) root.append(drawInterval(row, x, xs, middle));
  });
  panel.setAttribute("role", "img");
  panel.append(root);
}

function drawInterval(row, x, [low, high], middle) {
  const alone = row.low === null ? "alone" : "";
  const group = svg("g", { class: `interval ${colour(row.arm)} ${row.mark || ""} ${alone}` });
  const from = row.low === null ? row.estimate : Math.max(row.low, low);
  const to = row.high === null ? row.estimate : Math.min(row.high, high);
  group.append(svg("line", { x1: x(from), x2: x(to), y1: middle, y2: middle }));
  if (row.low !== null && row.low < low) group.append(arrow(x(low), middle, 1));
  if (row.high !== null && row.high > high) group.append(arrow(x(high), middle, -1));
  if (row.estimate >= low && row.estimate <= high) {
    group.append(svg("circle", { cx: x(row.estimate), cy: middle, r: 4 }));
  }
  return group;
}

/** An arrow head at an end that lies outside of the drawing. */
function arrow(at, middle, way) {
  return svg("path", { class: "arrow", d: `M${at + 6 * way} ${middle - 4}L${at} ${middle}L${at + 6 * way} ${middle + 4}` });
}

/** All estimates, and of the intervals what lies within reach of them: one vague row stays vague. */
function domain(rows, marks) {
  const estimates = rows.map((row) => row.estimate).filter(Number.isFinite);
  const [low, high] = extent([...estimates, ...marks.map(({ at }) => at)], 0.08);
  const reach = (high - low) * 1.5;
  const ends = rows.flatMap((row) => [row.low, row.high]).filter(Number.isFinite);
  const within = ends.map((end) => Math.min(Math.max(end, low - reach), high + reach));
  return extent([low, high, ...within], 0.01);
}

function interval(row, written) {
  if (row.estimate === null) return "not measured";
  const ends = row.low === null ? " (no interval)" : ` [${written(row.low)}, ${written(row.high)}]`;
  return written(row.estimate) + ends;
}

/** As much of a text as fits into so many pixels. */
function cut(text, pixels) {
  const most = Math.max(4, Math.floor(pixels / 6.2));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function intervalsTable(data, view) {
  const written = data.unit === "share" ? percent : short;
  const rows = data.rows.filter((row) => row.estimate !== undefined && !view.hidden.has(row.arm));
  return {
    head: [data.rowTitle, data.title, "low", "high", "says"],
    rows: rows.map((row) => [row.label, written(row.estimate), written(row.low), written(row.high), row.says || ""]),
  };
}
