// One run: what it does now, its curves as they grow, samples, alarms, its stages, its answers.
import { answersPanel } from "./answers.js";
import { el, figure, fill, get, keep, moment, number, pair, post, say, span } from "./dom.js";
import { controls, Plot } from "./plot.js";
import { word } from "./words.js";

const FIRST = ["loss", "validation_loss", "score", "watched_gold", "kl", "accuracy", "entropy", "length"], LAST = ["gradient_norm", "learning_rate", "tokens_per_second"];
const NEVER = new Set(["step"]), FEW = 5;

export function runView(place, name) {
  const address = `/api/runs/${encodeURIComponent(name)}`;
  const logs = new Map(), samples = new Map(), warned = new Map(), plots = new Map();
  const how = { smoothing: 0, log: false, axis: "step", get x() { return word(this.axis); } };
  const head = el("div"), alarms = el("ul", { class: "alarms", "aria-live": "polite" }), stages = el("div"), charts = el("div"), said = el("div"), spoken = el("div"), text = el("div"), lost = el("p", { class: "bad", role: "status" });
  const answers = el("div"), asking = el("div");
  fill(place, head, lost, alarms, asking, stages, charts, said, answers, spoken, text);
  let about = null, all = false, drawn = "", timer, waiting = false, asked = "";

  const source = new EventSource(`${address}/events`);
  source.addEventListener("open", () => { lost.textContent = ""; logs.clear(); samples.clear(); });
  source.addEventListener("error", () => { lost.textContent = word("stale"); });
  source.addEventListener("run", (event) => { about = JSON.parse(event.data); drawHead(); drawStages(); drawSaid(); drawAnswers(); drawAsking(); });
  source.addEventListener("rows", (event) => {
    const news = JSON.parse(event.data);
    if (news.anew || !logs.has(news.stage)) { logs.set(news.stage, []); samples.set(news.stage, []); }
    logs.get(news.stage).push(...news.rows);
    samples.set(news.stage, [...samples.get(news.stage), ...news.samples].slice(-20));
    warned.set(news.stage, news.alarms);
    if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; drawAlarms(); drawCharts(); drawSamples(); }); }
  });
  timer = setInterval(() => { if (about?.state === "running") drawHead(); }, 1000);

  const act = (path, body, done) => post(`${address}/${path}`, body).then(() => say(word(done)), (error) => say(error.message, true));

  function drawHead() {
    const now = Date.now() / 1000, running = about.state === "running";
    const held = document.activeElement?.dataset?.act;
    fill(head,
      el("h1", {}, name, " ", el("span", { class: `state ${about.state}` }, word(about.state))),
      el("p", { class: "soft" }, moment(about.begun), " · ", span((running ? now : about.ended) - about.begun), running && about.end ? ` · ${span(about.end - now)} ${word("left")}` : "", ` · ${about.done}/${about.stages.length} ${word("stages_done")}`),
      about.error ? el("p", { class: "bad" }, about.error) : null,
      el("div", { class: "row" },
        running ? el("button", { type: "button", "data-act": "stop", onclick: () => act("stop", {}, "stopping") }, word("stop")) : null,
        running ? el("button", { type: "button", "data-act": "stop_now", class: "small", onclick: () => act("stop", { at_once: true }, "stop_now") }, word("stop_now")) : null,
        ["interrupted", "killed", "failed"].includes(about.state) && about.recipe ? el("button", { type: "button", "data-act": "again", class: "go", onclick: () => act("again", {}, "started") }, word("again")) : null,
        about.stages.some((stage) => stage.digest) ? el("a", { href: `/runs/${encodeURIComponent(name)}/report`, target: "_blank", rel: "noopener" }, word("report")) : null,
        talkers().length ? el("button", { type: "button", "data-act": "talk", onclick: talk }, word("talk")) : null,
        about.stages.some((stage) => stage.digest && stage.chats) ? el("a", { href: `/through?run=${encodeURIComponent(name)}` }, word("through")) : null,
        el("a", { href: `/compare?run=${encodeURIComponent(name)}` }, word("compare"))));
    if (held) head.querySelector(`[data-act="${held}"]`)?.focus();
  }

  // The models that a run made and that talk, the last ones first.
  const talkers = () => about.stages.filter((stage) => stage.digest && stage.chats).map((stage) => stage.name).reverse();
  async function talk() {
    say(word("talk_begins"));
    try {
      const { port } = await post(`${address}/talk`, { stages: talkers().slice(0, 2) });
      location.assign(`${location.protocol}//${location.hostname}:${port}/`);
    } catch (error) { say(error.message, true); }
  }

  function drawStages() {
    const open = new Set([...stages.querySelectorAll("details[open]")].map((one) => one.dataset.stage));
    fill(stages, el("h2", {}, word("stages")), el("ol", { class: "stages" }, about.stages.map((stage) => el("li", { class: stage.state },
      el("div", { class: "row" }, el("strong", {}, stage.name), el("small", {}, pair(stage.title) === stage.name ? "" : pair(stage.title)), el("span", { class: `state ${stage.state}` }, word(stage.state)),
        stage.state === "running" && stage.total ? el("progress", { max: stage.total, value: stage.done, "aria-label": stage.name }) : null,
        stage.state === "running" ? el("small", {}, `${stage.total ? `${number(stage.done)}/${number(stage.total)} ` : ""}${stage.text || ""}`) : null,
        stage.seconds !== undefined ? el("small", {}, `${span(stage.seconds)} · ${word("memory")} ${number(stage.peak_memory_mb)} MB`) : null),
      stage.figures.length || Object.keys(stage.settings).length ? el("details", { "data-stage": stage.name, open: open.has(stage.name) },
        el("summary", {}, main(stage) ? `${pair(main(stage).words)} ${figure(main(stage))}` : word("figures_and_settings")),
        el("div", { class: "two" },
          el("table", {}, el("tbody", {}, stage.figures.map((one) => el("tr", {}, el("th", { scope: "row" }, pair(one.words)), el("td", { class: "n" }, figure(one)))))),
          el("div", {}, el("p", {}, el("small", {}, `${word("lineage")}: ${Object.entries(stage.inputs).map(([where, path]) => `${where} ${path}`).join(", ") || "–"}`)),
            el("pre", {}, Object.entries(stage.settings).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join("\n"))))) : null))));
  }

  // What a stage says first of itself: its headline, else a rate.
  const main = (stage) => stage.figures.find((one) => one.key === stage.headline) || stage.figures.find((one) => one.low !== null);

  function drawAlarms() {
    fill(alarms, [...warned].flatMap(([stage, found]) => found.map((one) =>
      el("li", { class: one.what === "plateau" ? "note" : "bad" }, `${stage}: ${one.what === "fooled" ? "" : `${one.key} `}${word(one.what)} (${word("step")} ${number(one.step)})`))));
  }

  // Every figure that is logged, by stage; those that tell most come first.
  function drawCharts() {
    const axes = ["step"];
    if ([...logs.values()].some((rows) => rows.some((row) => row.tokens !== undefined))) axes.push("tokens");
    if ([...logs.values()].some((rows) => rows.some((row) => row.seconds !== undefined))) axes.push("seconds");
    const wanted = [...logs].filter(([, rows]) => rows.length).reverse().map(([stage, rows]) => {
      const keys = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((key) => !NEVER.has(key) && !axes.includes(key) && rows.filter((row) => row[key] !== undefined).length > 1 && key !== "validation_loss" && key !== "validation_loss_before");
      const rank = (key) => FIRST.includes(key) ? FIRST.indexOf(key) : LAST.includes(key) ? 1000 + LAST.indexOf(key) : 500;
      return [stage, keys.sort((one, other) => rank(one) - rank(other))];
    }).filter(([, keys]) => keys.length);
    const shape = JSON.stringify([wanted, axes, word("runs")]);
    if (shape !== drawn) {
      drawn = shape;
      const open = new Map([...charts.querySelectorAll("details")].map((one) => [one.dataset.stage, one.open]));
      plots.clear();
      fill(charts, wanted.length ? [el("h2", {}, word("curves")), controls(how, axes, drawPlots)] : [], wanted.map(([stage, keys], place) =>
        el("details", { "data-stage": stage, open: open.get(stage) ?? place === 0, ontoggle: drawPlots }, el("summary", {}, stage), el("div", { class: "charts" }, keys.map((key) => {
          const plot = new Plot(`${stage}: ${title(stage, key)}`);
          plots.set(`${stage} ${key}`, [plot, stage, key]);
          return plot.node;
        })))));
    }
    drawPlots();
  }

  function title(stage, key) {
    const known = about?.stages.find((one) => one.name === stage)?.figures.find((one) => one.key === key);
    return known ? pair(known.words) : key.replaceAll("_", " ");
  }

  function drawPlots() {
    for (const [plot, stage, key] of plots.values()) {
      if (!plot.node.closest("details")?.open) continue;
      const points = (which) => logs.get(stage).filter((row) => row[which] !== undefined && row[how.axis] !== undefined).map((row) => [row[how.axis], row[which]]);
      const lines = [{ name: key, colour: 0, points: points(key) }];
      if (key === "loss" && points("validation_loss").length) lines.push({ name: "validation_loss", colour: 1, points: points("validation_loss") });
      plot.draw(lines, how);
    }
  }

  function drawSamples() {
    const open = said.querySelector("details")?.open ?? true;
    const found = [...samples].flatMap(([stage, rows]) => rows.map((row) => [stage, row])).reverse();
    fill(said, found.length ? el("details", { open }, el("summary", {}, `${word("samples")} (${found.length})`), found.slice(0, all ? undefined : FEW).map(([stage, row]) => el("article", {},
      el("small", {}, `${stage} · ${word("step")} ${row.step}${row.score === null ? "" : ` · ${word("score")} ${number(row.score)}`}`), el("p", { class: "ask" }, row.prompt), el("p", { class: "text" }, row.text))),
      found.length > FEW && !all ? el("button", { type: "button", onclick: () => { all = true; drawSamples(); } }, word("more")) : null) : []);
  }

  function drawSaid() {
    const open = [...spoken.querySelectorAll("details")].map((one) => one.open);
    const lines = about.said.map(([time, stage, line]) => `${new Date(time * 1000).toLocaleTimeString()}  ${stage}  ${line}`).join("\n");
    fill(spoken, el("details", { open: open[0] ?? about.state === "failed" }, el("summary", {}, word("log")), el("pre", { tabindex: "0" }, lines || about.output)));
    if (about.text !== undefined) fill(text);
    if (asked !== about.recipe) {
      asked = about.recipe;
      fetch(address).then((answer) => answer.json()).then((found) => fill(text, found.text ? el("details", {}, el("summary", {}, `${word("recipe")} `, el("small", {}, found.recipe)),
        el("pre", { tabindex: "0" }, found.text), found.overrides.length ? el("p", {}, el("code", {}, found.overrides.map((one) => `--set ${one}`).join(" "))) : null,
        el("button", { type: "button", onclick: () => keep(`${name}.yaml`, found.text, "text/yaml") }, word("download"))) : [])).catch(() => {});
    }
  }

  let examined = "";
  function drawAnswers() {
    const found = about.stages.filter((stage) => stage.kind === "evaluate" && stage.digest).map((stage) => stage.name);
    if (JSON.stringify(found) === examined) return;
    examined = JSON.stringify(found);
    fill(answers, found.length ? answersPanel(name, found) : []);
  }

  // What a reward model or an examination leaves open goes to people, in a project of the annotation app.
  let open = false;
  async function drawAsking() {
    const something = about.stages.some((stage) => stage.digest && ["reward", "evaluate"].includes(stage.kind));
    if (something === open) return;
    open = something;
    if (!open) return fill(asking);
    const { projects } = await get("/api/projects").catch(() => ({ projects: [] }));
    const project = el("input", { list: "projects", value: projects[0] ?? "people", required: true, maxlength: 200, size: 16 }), result = el("p", { role: "status", class: "soft" });
    const button = el("button", {}, word("ask_people"));
    fill(asking, el("form", { class: "row", onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      fill(result, word("asking"));
      try {
        const told = await post(`${address}/ask`, { project: project.value.trim() });
        fill(result, `${word("asked_people").replace("#", told.found)}${told.added}`, told.asked_again ? ` · ${word("asked_again")}${told.asked_again}` : "", told.refused ? ` · ${word("refused_rows")}${told.refused}` : "",
          `. ${word("open_it")} `, el("code", {}, `trivium annotate ${project.value.trim()}`));
      } catch (error) { fill(result, el("span", { class: "bad" }, error.message)); }
      button.disabled = false;
    } }, button, el("label", {}, word("in_project"), " ", project), el("datalist", { id: "projects" }, projects.map((one) => el("option", { value: one })))), result);
  }

  return () => { source.close(); clearInterval(timer); };
}
