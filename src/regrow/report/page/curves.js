"use strict";
// Learning curves: a line and a band for every arm, or a line for every seed; the fork marked.

const BANDS = 8; // with more lines, their bands hide each other

/** Draws one condition. `view`: { hidden: arms, seeds: each or means, axis: what is across }. */
function drawCurves(panel, data, view, width) {
  const shown = data.lines.filter((arm) => !view.hidden.has(arm.arm));
  const across = (arm) => arm.x[view.axis];
  const xs = extent(data.lines.flatMap(across));
  // The range is that of the runs, in both views: a band of few seeds may leave it, and is clipped.
  const runs = data.reach || shown.flatMap((arm) => arm.seeds.flat());
  const ys = extent([...runs, data.random], 0.04);
  const { root, plot, x, y, box } = frame({
    width,
    height: Math.round(Math.min(340, Math.max(190, width * 0.55))),
    xs,
    ys,
    titles: { x: view.title },
  });
  if (data.random !== null) {
    const at = y(data.random);
    plot.append(svg("line", { class: "random", x1: box.left, x2: box.right, y1: at, y2: at }));
  }
  if (Number.isFinite(data.fork[view.axis])) plot.append(...mark(x(data.fork[view.axis]), box, "fork"));
  const banded = shown.length <= BANDS;
  for (const arm of shown) plot.append(drawArm(arm, across(arm), view.seeds, banded, x, y));
  for (const event of data.events) {
    if (view.axis !== "env_steps" || view.hidden.has(event.arm)) continue;
    const at = x(event.at);
    plot.append(svg("line", { class: `event ${colour(event.arm)}`, x1: at, x2: at, y1: box.bottom - 9, y2: box.bottom }));
  }
  const pointer = svg("g", { class: "pointer" });
  root.append(pointer);
  panel.append(root);

  const stops = [...new Set(shown.flatMap(across))].sort((a, b) => a - b);
  function show(i) {
    const wanted = stops[i];
    const rows = [];
    pointer.replaceChildren(svg("line", { x1: x(wanted), x2: x(wanted), y1: box.top, y2: box.bottom }));
    for (const arm of shown) {
      const at = nearest(across(arm), wanted);
      if (outside(across(arm), wanted) || arm.mean[at] === null) continue;
      pointer.append(
        svg("circle", { class: colour(arm.arm), cx: x(across(arm)[at]), cy: y(arm.mean[at]), r: 3.5 }),
      );
      rows.push([colour(arm.arm), armName(arm.arm), withInterval(arm, at)]);
    }
    return { title: `${short(wanted)} ${view.unit}`, rows };
  }
  explore(panel, root, stops.map(x), show, () => pointer.replaceChildren());
}

function drawArm(arm, xs, seeds, banded, x, y) {
  const group = svg("g", { class: `arm ${colour(arm.arm)}`, "data-arm": armName(arm.arm) });
  if (seeds) {
    group.append(...arm.seeds.map((run) => svg("path", { class: "seed", d: line(xs, run, x, y) })));
  } else {
    group.append(
      banded ? svg("path", { class: "band", d: band(xs, arm.low, arm.high, x, y) }) : "",
      svg("path", { class: "mean", d: line(xs, arm.mean, x, y) }),
    );
  }
  return group;
}

function mark(at, box, word) {
  return [
    svg("line", { class: "fork", x1: at, x2: at, y1: box.top, y2: box.bottom }),
    svg("text", { class: "fork", x: at + 3, y: box.top + 10 }, word),
  ];
}

/** Whether a place lies farther from an arm's points than they lie from each other. */
function outside(xs, wanted) {
  const step = xs.length > 1 ? (xs[xs.length - 1] - xs[0]) / (xs.length - 1) : 0;
  return wanted < xs[0] - step || wanted > xs[xs.length - 1] + step;
}

function withInterval(arm, i) {
  const mean = short(arm.mean[i]);
  return arm.low[i] === null ? mean : `${mean} [${short(arm.low[i])}, ${short(arm.high[i])}]`;
}

/** What is drawn, as the head and the rows of a table. */
function curvesTable(data, view) {
  const shown = data.lines.filter((arm) => !view.hidden.has(arm.arm));
  const stops = [...new Set(shown.flatMap((arm) => arm.x[view.axis]))].sort((a, b) => a - b);
  const columns = shown.flatMap((arm) =>
    view.seeds
      ? arm.seeds.map((run, i) => [`${armName(arm.arm)}, ${data.sample} ${data.seeds[i]}`, arm, (at) => short(run[at])])
      : [[armName(arm.arm), arm, (at) => withInterval(arm, at)]],
  );
  const rows = stops.map((stop) => [
    short(stop),
    ...columns.map(([, arm, read]) => {
      const at = arm.x[view.axis].indexOf(stop);
      return at < 0 ? "" : read(at);
    }),
  ]);
  return { head: [view.title, ...columns.map(([name]) => name)], rows };
}
