"use strict";
// Brings the page to life: what is drawn comes from the JSON beside it, how from the reader.

const page = JSON.parse(document.getElementById("data").textContent);

const KINDS = {
  curves: { draw: drawCurves, table: curvesTable, hidable: true },
  intervals: { draw: drawIntervals, table: intervalsTable, hidable: true },
  strips: { draw: drawStrips, table: stripsTable, hidable: true },
  scatter: { draw: drawScatter, table: scatterTable, hidable: false },
};

function colour(arm) {
  return arm === null || arm === undefined ? "plain" : page.arms[arm].colour;
}

function armName(arm) {
  return page.arms[arm].name;
}

/** One chart: its controls, its drawings, and the table behind them. */
class Chart {
  constructor(figure) {
    this.figure = figure;
    this.data = page.charts[figure.dataset.chart];
    this.kind = KINDS[this.data.kind];
    const axis = (this.data.axes || [{}])[0];
    this.view = { hidden: new Set(), seeds: false, axis: axis.key, title: axis.title, unit: axis.unit };
    this.chosen = this.data.start;
    this.controls = figure.querySelector(".controls");
    this.panels = figure.querySelector(".panels");
    this.table = figure.querySelector(".data");
    this.build();
    this.table.addEventListener("toggle", () => this.fill());
    let width = 0;
    new ResizeObserver(() => {
      if (this.panels.clientWidth === width) return;
      width = this.panels.clientWidth;
      requestAnimationFrame(() => this.draw());
    }).observe(this.panels);
  }

  build() {
    const { panels, choose, axes, legend } = this.data;
    if (panels.length > 1) this.controls.append(this.chooser(panels, choose));
    if (axes && axes.length > 1) {
      const names = axes.map((axis) => axis.title);
      this.controls.append(
        choice("over", names, 0, (i) => {
          Object.assign(this.view, { axis: axes[i].key, title: axes[i].title, unit: axes[i].unit });
          this.draw();
        }),
      );
    }
    const lines = panels.flatMap((panel) => panel.lines || []);
    if (lines.some((line) => line.seeds.length > 1)) {
      this.controls.append(
        choice("lines", ["means", `${panels[0].sample || "seed"}s`], 0, (i) => {
          this.view.seeds = i === 1;
          this.draw();
        }),
      );
    }
    if (this.kind.hidable && legend.length > 1) this.controls.append(this.legend(legend));
  }

  chooser(panels, choose) {
    const select = html("select", {});
    if (this.data.all) select.append(html("option", { value: "" }, this.data.all));
    panels.forEach((panel, i) => select.append(html("option", { value: i }, panel.name)));
    select.value = this.chosen === null ? "" : String(this.chosen);
    select.addEventListener("change", () => {
      this.chosen = select.value === "" ? null : Number(select.value);
      this.draw();
    });
    return html("label", { class: "chooser" }, choose, select);
  }

  /** A button for every arm: pressed is shown. */
  legend(arms) {
    const group = html("div", { class: "legend", role: "group", "aria-label": "arms shown" });
    for (const arm of arms) {
      const key = html("i", { class: `key ${colour(arm)}` });
      const button = html("button", { type: "button", "aria-pressed": "true" }, key, armName(arm));
      button.addEventListener("click", () => {
        if (!this.view.hidden.delete(arm)) this.view.hidden.add(arm);
        button.setAttribute("aria-pressed", String(!this.view.hidden.has(arm)));
        this.draw();
      });
      group.append(button);
    }
    return group;
  }

  shown() {
    const { panels } = this.data;
    return this.chosen === null ? panels : [panels[this.chosen]];
  }

  draw() {
    const shown = this.shown();
    this.panels.classList.toggle("many", shown.length > 1);
    this.panels.replaceChildren();
    // All are there before the first is drawn: how wide one is depends on how many there are.
    const places = shown.map((data) =>
      html("div", { class: "panel", "aria-label": `${this.data.name}: ${data.name}` }),
    );
    this.panels.append(...shown.map((data, i) => titled(data, places[i], shown.length > 1)));
    shown.forEach((data, i) => {
      this.kind.draw(places[i], data, this.view, Math.max(places[i].clientWidth, 240));
    });
    this.fill();
  }

  fill() {
    const place = this.table.querySelector(".tables");
    place.replaceChildren();
    if (!this.table.open) return;
    for (const data of this.shown()) {
      const { head, rows } = this.kind.table(data, this.view);
      place.append(
        html(
          "table",
          {},
          html("caption", {}, data.name),
          html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { scope: "col" }, text)))),
          html("tbody", {}, ...rows.map(tableRow)),
        ),
      );
    }
  }
}

/** A panel under its name; where that stands in the chooser already, it is for paper only. */
function titled(data, panel, named) {
  const note = data.note ? html("p", { class: "note" }, data.note) : null;
  const name = html("h4", { class: named ? null : "chosen" }, data.name);
  return html("div", { class: "titled" }, name, note, panel);
}

function tableRow([first, ...rest]) {
  const cells = rest.map((text) => html("td", {}, text));
  return html("tr", {}, html("th", { scope: "row" }, first), ...cells);
}

let groups = 0;

/** Radio buttons in a row. */
function choice(legend, names, start, chosen) {
  const group = `choice${groups++}`;
  const set = html("fieldset", { class: "choice" }, html("legend", {}, legend));
  names.forEach((name, i) => {
    const radio = html("input", { type: "radio", name: group, checked: i === start ? "" : null });
    radio.addEventListener("change", () => chosen(i));
    set.append(html("label", {}, radio, html("span", {}, name)));
  });
  return set;
}

const THEMES = ["system", "light", "dark"];

/** What the reader chose last time, where the browser remembers such things for a file. */
function remembered() {
  try {
    return Math.max(0, THEMES.indexOf(localStorage.getItem("regrow-theme")));
  } catch {
    return 0;
  }
}

function paint(theme) {
  document.documentElement.dataset.theme = THEMES[theme];
  try {
    localStorage.setItem("regrow-theme", THEMES[theme]);
  } catch {
    console.info("the choice of colours is not remembered here");
  }
}

/** On paper nothing can be opened. */
function unfold() {
  for (const details of document.querySelectorAll("details:not(.data):not([open])")) {
    details.open = true;
    details.dataset.unfolded = "";
  }
}

function fold() {
  for (const details of document.querySelectorAll("details[data-unfolded]")) {
    details.open = false;
    delete details.dataset.unfolded;
  }
}

addEventListener("beforeprint", unfold);
addEventListener("afterprint", fold);
paint(remembered());
document.getElementById("theme").append(choice("colours", THEMES, remembered(), paint));
for (const figure of document.querySelectorAll("figure[data-chart]")) new Chart(figure);
