// The list of runs: those under way first said, with what they do and how long it will take.
import { el, figure, fill, get, moment, pair, post, say, span } from "./dom.js";
import { word } from "./words.js";

const STATES = ["", "running", "finished", "failed", "interrupted", "killed"];
const EVERY = 2000, PAGE = 50;

export function runsView(place) {
  const asked = { text: "", state: "", count: PAGE };
  const ticked = new Set();
  const filters = el("div", { class: "filters" }), list = el("div"), queue = el("div");
  const search = el("input", { type: "search", "aria-label": word("search"), placeholder: word("search"), oninput: () => { asked.text = search.value; refresh(); } });
  const compare = el("a", { class: "go", href: "/compare", hidden: true }, word("compare_ticked"));
  let shown = "", timer, gone = false, wrong = "";
  fill(place, el("h1", {}, word("runs")), el("div", { class: "row" }, search, filters, compare), queue, list);

  async function refresh() {
    clearTimeout(timer);
    try {
      const found = await get("/api/runs", asked);
      if (gone) return;
      wrong = "";
      const told = JSON.stringify([found, asked]);
      if (told !== shown || found.runs.some((run) => run.state === "running")) draw(found);
      shown = told;
    } catch (error) {
      if (error.message !== wrong) say(wrong = error.message, true);
    }
    if (!gone) timer = setTimeout(refresh, EVERY);
  }

  function draw(found) {
    const focused = document.activeElement?.dataset?.run;
    const total = Object.values(found.counts).reduce((sum, one) => sum + one, 0);
    fill(filters, STATES.map((state) => el("button", { type: "button", class: "small", "aria-pressed": String(asked.state === state),
      onclick: () => { asked.state = state; refresh(); } }, `${word(state || "all")} ${state ? found.counts[state] : total}`)));
    fill(queue, found.waiting.length ? el("section", { class: "panel" }, el("h2", {}, word("queue")), el("ul", {}, found.waiting.map((job) =>
      el("li", {}, job.run, " ", el("button", { type: "button", class: "small", onclick: () => post(`/api/jobs/${job.id}/withdraw`).then(refresh, (error) => say(error.message, true)) }, word("withdraw")))))) : []);
    if (!found.runs.length) {
      fill(list, el("p", {}, word(total || asked.text ? "nothing_found" : "nothing_yet"), " ", el("a", { href: "/start" }, word("first_run"))));
      return;
    }
    const now = Date.now() / 1000;
    fill(list, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": word("runs") }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "hidden" }, word("compare"))), ["run", "state", "begun", "took", "figures"].map((key) => el("th", { scope: "col" }, word(key))))),
      el("tbody", {}, found.runs.map((run) => el("tr", {},
        el("td", {}, el("input", { type: "checkbox", "aria-label": `${word("compare")}: ${run.name}`, checked: ticked.has(run.name), onchange: (event) => tick(run.name, event.target.checked) })),
        el("th", { scope: "row" }, el("a", { href: `/run/${encodeURIComponent(run.name)}`, "data-run": run.name }, run.name)),
        el("td", {}, el("span", { class: `state ${run.state}` }, word(run.state)), el("small", {}, run.state === "running"
          ? `${run.now.join(", ")} · ${run.done}/${run.stages}${run.end ? ` · ${span(run.end - now)} ${word("left")}` : ""}`
          : run.error ? run.error.slice(0, 160) : `${run.done}/${run.stages} ${word("stages_done")}`)),
        el("td", {}, moment(run.begun)), el("td", { class: "n" }, span((run.state === "running" ? now : run.ended) - run.begun)),
        el("td", {}, run.figures.slice(-3).map((one) => el("div", {}, el("small", {}, `${one.stage}: ${pair(one.words)} `), figure(one))))))))),
      found.total > found.runs.length ? el("button", { type: "button", onclick: () => { asked.count = Math.min(200, asked.count + PAGE); refresh(); } }, word("more")) : null);
    if (focused) list.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
  }

  function tick(name, on) {
    if (on) ticked.add(name); else ticked.delete(name);
    compare.hidden = ticked.size < 2;
    compare.setAttribute("href", `/compare?${new URLSearchParams([...ticked].map((one) => ["run", one]))}`);
  }

  refresh();
  return () => { gone = true; clearTimeout(timer); };
}
