// Runs side by side: settings that differ, results with intervals, curves laid over one another.
import { cell, el, figure, fill, get, keep, number } from "./dom.js";
import { controls, Plot } from "./plot.js";
import { word } from "./words.js";

export async function compareView(place) {
  const chosen = new URLSearchParams(location.search).getAll("run");
  const known = (await get("/api/runs", { count: 200 })).runs.map((run) => run.name);
  const names = [...new Set([...known, ...chosen])];
  const picker = el("fieldset", { class: "panel picks" }, el("legend", {}, word("pick_runs")), names.map((name) => el("label", {}, el("input", { type: "checkbox", checked: chosen.includes(name), onchange: (event) => {
    const now = new Set(new URLSearchParams(location.search).getAll("run"));
    if (event.target.checked) now.add(name); else now.delete(name);
    history.replaceState(null, "", `/compare?${new URLSearchParams([...now].map((one) => ["run", one]))}`);
    show([...now]);
  } }), " ", name)));
  const below = el("div");
  fill(place, el("h1", {}, word("compare")), picker, below);

  async function show(runs) {
    if (!runs.length) { fill(below, el("p", {}, word("pick_runs"))); return; }
    let found;
    try { found = await get("/api/compare", { run: runs }); } catch (error) { fill(below, el("p", { class: "bad", role: "alert" }, error.message)); return; }
    fill(below, drawCurves(found), drawTables(found));
  }

  function drawCurves(found) {
    const how = { smoothing: 0, log: false, axis: "step", get x() { return word("step"); } };
    const groups = new Map();
    found.all.forEach((run, colour) => {
      for (const [stage, curves] of Object.entries(found.curves[run])) for (const [key, points] of Object.entries(curves)) {
        if (!groups.has(stage)) groups.set(stage, new Map());
        if (!groups.get(stage).has(key)) groups.get(stage).set(key, []);
        groups.get(stage).get(key).push({ name: run, colour: colour % 8, points });
      }
    });
    const plots = [];
    const again = () => { for (const [plot, lines] of plots) plot.draw(lines, how); };
    const parts = [...groups].map(([stage, keys], place) => el("details", { open: place === 0 }, el("summary", {}, stage), el("div", { class: "charts" }, [...keys].map(([key, lines]) => {
      const plot = new Plot(`${stage}: ${key.replaceAll("_", " ")}`);
      plots.push([plot, lines]);
      return plot.node;
    }))));
    again();
    return parts.length ? [el("h2", {}, word("curves")), controls(how, ["step"], again), parts] : [];
  }

  // Numbers of the log are rates where they have an interval.
  const shown = (value) => value === null || value === undefined ? "–" : typeof value === "object" ? figure(value) : number(value);

  let different = true;
  function drawTables(found, node = el("div")) {
    const settings = Object.entries(found.stages).flatMap(([stage, about]) => Object.entries(about.settings).map(([key, values]) => [stage, key, values]));
    const results = Object.entries(found.stages).flatMap(([stage, about]) => Object.entries(about.results).map(([key, values]) => [stage, about.names[key] || key, values.map(shown)])).filter(([, , values]) => !different || found.runs.length < 2 || new Set(values).size > 1);
    const table = (rows, title) => rows.length ? [el("h2", {}, title), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, word("stage")), el("th", { scope: "col" }, title), found.runs.map((run) => el("th", { scope: "col" }, run)))),
      el("tbody", {}, rows.map(([stage, key, values]) => el("tr", {}, el("td", {}, stage), el("th", { scope: "row" }, key), values.map((value) => el("td", { class: "n" }, value ?? "–"))))))),
      el("button", { type: "button", class: "small", onclick: () => keep("compare.csv", [[word("stage"), title, ...found.runs], ...rows.map(([stage, key, values]) => [stage, key, ...values])].map((row) => row.map(cell).join(",")).join("\n") + "\n", "text/csv") }, "CSV")] : [];
    return fill(node, settings.length ? table(settings, word("differ")) : el("p", {}, word("same")),
      found.runs.length > 1 ? el("label", {}, el("input", { type: "checkbox", checked: different, onchange: (event) => { different = event.target.checked; drawTables(found, node); } }), " ", word("only_different")) : null,
      table(results, word("results")));
  }

  await show(chosen);
}
