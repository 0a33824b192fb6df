"use strict";
// One number against another, a point for every run: a proxy and the gain that it should predict.

function drawScatter(panel, data, view, width) {
  const points = [...data.points].sort((a, b) => a.x - b.x);
  const { root, plot, x, y, box } = frame({
    width,
    height: Math.round(Math.min(340, Math.max(200, width * 0.62))),
    xs: extent(points.map((point) => point.x), 0.06),
    ys: extent([...points.map((point) => point.y), 0], 0.08),
    titles: { x: data.across },
    written: { y: data.unit === "share" ? percent : short },
  });
  plot.append(svg("line", { class: "zero", x1: box.left, x2: box.right, y1: y(0), y2: y(0) }));
  plot.append(
    ...points.map((point) =>
      svg("circle", { class: `point ${colour(point.group)}`, cx: x(point.x), cy: y(point.y), r: 3.5 }),
    ),
  );
  const pointer = svg("g", { class: "pointer" });
  root.append(pointer);
  panel.append(root);
  function show(i) {
    const point = points[i];
    pointer.replaceChildren(svg("circle", { class: "ring", cx: x(point.x), cy: y(point.y), r: 7 }));
    const gain = data.unit === "share" ? percent(point.y) : short(point.y);
    return { title: point.label, rows: [["", data.across, short(point.x)], ["", data.up, gain]] };
  }
  explore(panel, root, points.map((point) => x(point.x)), show, () => pointer.replaceChildren());
}

function scatterTable(data) {
  const gain = data.unit === "share" ? percent : short;
  return {
    head: [data.rowTitle, data.across, data.up],
    rows: data.points.map((point) => [point.label, short(point.x), gain(point.y)]),
  };
}
