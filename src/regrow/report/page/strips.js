"use strict";
// Probes before and after: for every probe a scale of its own, from 0 or its least value on.

/** Draws rows of { label, fresh, fork, ends: [[arm, value]] }. */
function drawStrips(panel, data, view, width) {
  const narrow = width < NARROW;
  const step = narrow ? 36 : 20;
  const left = narrow ? 8 : Math.min(width * 0.36, 220);
  const right = width - (narrow ? 8 : 130);
  const root = svg("svg", {
    viewBox: `0 0 ${width} ${data.rows.length * step + 22}`,
    class: "drawing",
    "aria-hidden": "true",
  });
  root.append(svg("text", { x: width - 2, y: 11, "text-anchor": "end" }, "fresh → at the fork"));
  data.rows.forEach((row, i) => {
    const middle = 16 + i * step + (narrow ? 27 : step / 2) + 2;
    const words = 16 + i * step + (narrow ? 16 : step / 2 + 6);
    const ends = row.ends.filter(([arm]) => !view.hidden.has(arm));
    const [low, high] = extent([0, row.fresh, row.fork, ...row.ends.map(([, value]) => value)]);
    const x = scale([low, high], [left + 5, right - 5]);
    const place = narrow ? { x: 2 } : { x: left - 8, "text-anchor": "end" };
    root.append(
      svg("text", { ...place, y: words, class: "label" }, cut(row.label, narrow ? width * 0.6 : left - 8), svg("title", {}, row.label)),
      svg("line", { class: "strip", x1: left, x2: right, y1: middle, y2: middle }),
      svg("text", { x: width - 2, y: words, "text-anchor": "end", class: "value" }, `${short(row.fresh)} → ${short(row.fork)}`),
    );
    for (const [arm, value] of ends) {
      if (value === null) continue;
      const dot = { class: `end ${colour(arm)}`, cx: x(value), cy: middle, r: 3.5 };
      root.append(svg("circle", dot, svg("title", {}, `${armName(arm)} at the end: ${short(value)}`)));
    }
    if (row.fresh !== null) root.append(diamond(x(row.fresh), middle, "fresh", `fresh: ${short(row.fresh)}`));
    if (row.fork !== null) root.append(diamond(x(row.fork), middle, "at-fork", `at the fork: ${short(row.fork)}`));
  });
  panel.setAttribute("role", "img");
  panel.append(root);
}

function diamond(x, y, kind, title) {
  return svg("path", { class: kind, d: `M${x} ${y - 5}L${x + 4.5} ${y}L${x} ${y + 5}L${x - 4.5} ${y}Z` }, svg("title", {}, title));
}

function stripsTable(data, view) {
  const arms = data.rows[0].ends.map(([arm]) => arm).filter((arm) => !view.hidden.has(arm));
  return {
    head: ["probe", "fresh", "fork", ...arms.map((arm) => `end: ${armName(arm)}`)],
    rows: data.rows.map((row) => [
      row.label,
      short(row.fresh),
      short(row.fork),
      ...row.ends.filter(([arm]) => arms.includes(arm)).map(([, value]) => short(value)),
    ]),
  };
}
