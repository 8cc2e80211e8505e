// Starting a run: a template by task, a form made from the settings' schema, and the recipe's text, which is what runs.
import { el, fill, get, post, say, span, upload } from "./dom.js";
import { word } from "./words.js";

const CHECK_AFTER = 400, LEARNS = new Set(["sft", "pretrain", "classify", "translate"]);

export async function startView(place) {
  const templates = await get("/api/templates");
  const text = el("textarea", { id: "yaml", rows: 24, spellcheck: "false", "aria-describedby": "verdict", oninput: () => later() });
  const verdict = el("p", { id: "verdict", role: "status" }), form = el("div", { onfocusout: () => setTimeout(() => stale && drawForm()) }), times = el("div"), file = el("p", { class: "soft", role: "status" });
  const go = el("button", { type: "button", class: "go", disabled: true, onclick: start }, word("start_it"));
  const only = el("input", { type: "checkbox", checked: true, onchange: () => drawForm() });
  const picked = el("input", { type: "file", id: "file", onchange: send });
  let timer, ticket = 0, stale = false, turn = Promise.resolve(), found = { stages: [], error: "", run: null };
  fill(place, el("h1", {}, word("start")), el("div", { class: "choices", role: "group", "aria-label": word("choose") },
    templates.map((one) => el("button", { type: "button", onclick: () => { text.value = one.text; check(); } }, word(one.name))),
    el("button", { type: "button", onclick: () => { text.value = "name: mine\nseed: 0\n\nstages:\n"; check(); text.focus(); } }, word("own"))),
    el("div", { class: "panel" }, el("label", { for: "file" }, word("upload")), " ", picked, file),
    el("div", { class: "two wide" }, el("section", {}, el("label", { for: "yaml" }, word("yaml")), text, verdict,
      el("div", { class: "row" }, go, el("button", { type: "button", onclick: measure }, word("estimate")), el("small", {}, word("line_up"))), times),
    el("section", {}, el("label", {}, only, " ", word("changed_only")), el("p", {}, el("small", {}, word("comments_go"))), form)));
  text.value = templates[0].text;
  await check();

  function later() { clearTimeout(timer); timer = setTimeout(check, CHECK_AFTER); }

  async function check() {
    clearTimeout(timer);
    const mine = ++ticket;
    try { found = await post("/api/recipe/form", { text: text.value }); } catch (error) { found = { ...found, error: error.message, run: null }; }
    if (mine !== ticket) return;
    verdict.className = found.error ? "bad" : "good";
    verdict.textContent = found.error || `${word("recipe_good")}${found.exists ? ` ${word("exists")}` : ""}`;
    go.disabled = Boolean(found.error);
    drawForm();
  }

  // The setting at which the error stands is marked: errors begin with its place. A field that is being
  // typed in stays until it is left.
  function drawForm() {
    const typing = form.contains(document.activeElement) ? document.activeElement : null;
    stale = typing?.dataset.drawn !== undefined && typing.value !== typing.dataset.drawn;
    if (stale) return;
    const open = new Map([...form.querySelectorAll("details")].map((one) => [one.dataset.stage, one.open]));
    fill(form, found.stages.map((stage, number) => el("details", { "data-stage": stage.name, open: open.get(stage.name) ?? number < 6 },
      el("summary", {}, el("strong", {}, stage.name), " ", el("small", {}, stage.about)),
      LEARNS.has(stage.kind) ? preview(stage.name) : null,
      stage.settings.filter((one) => one.given || one.needed || !only.checked).map((one) => field(stage.name, one)))));
    if (typing?.id) document.getElementById(typing.id)?.focus();
  }

  function field(stage, one) {
    const id = `set-${stage}-${one.name}`, place_of = `stages.${stage}.${one.name}`, wrong = found.error.startsWith(place_of);
    const value = one.given ? one.value : one.default, choices = one.schema.enum || one.schema.anyOf?.find((part) => part.enum)?.enum;
    const set = (given) => turn = turn.then(() => post("/api/recipe/set", { text: text.value, setting: `${stage}.${one.name}`, value: given })).then((made) => { text.value = made.text; return check(); }, (error) => say(error.message, true));
    const shown = typeof value === "string" ? value : JSON.stringify(value ?? null);
    let input;
    if (one.schema.type === "boolean") input = el("input", { id, type: "checkbox", checked: value === true, onchange: (event) => set(String(event.target.checked)) });
    else if (choices) input = el("select", { id, onchange: (event) => set(event.target.value) }, [...(one.schema.anyOf ? ["null"] : []), ...choices].map((name) => el("option", { value: name, selected: String(value) === String(name) }, String(name))));
    else input = el("input", { id, value: shown, "data-drawn": shown, "aria-describedby": `${id}-about`, "aria-invalid": wrong ? "true" : null, onchange: (event) => set(event.target.value) });
    const range = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"].filter((key) => one.schema[key] !== undefined).map((key) => `${{ minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<" }[key]} ${one.schema[key]}`).join(", ");
    return el("div", { class: `field${wrong ? " wrong" : ""}` }, el("label", { for: id }, one.name, one.needed ? el("em", {}, ` ${word("needed")}`) : null), input,
      one.given ? el("button", { type: "button", class: "small", title: `${word("default")}: ${JSON.stringify(one.default ?? null)}`, onclick: () => set(null) }, word("take_out")) : null,
      el("small", { id: `${id}-about` }, `${one.about}${range ? ` (${range})` : ""}`), wrong ? el("p", { class: "bad" }, found.error.slice(place_of.length)) : null);
  }

  // The first batch of a stage, made of a sample of the rows: every token, those that carry loss marked.
  function preview(stage) {
    const below = el("div", { class: "preview" });
    const look = async () => {
      fill(below, el("p", { role: "status" }, word("previewing")));
      try {
        const { tokens } = await post("/api/recipe/preview", { text: text.value, stage });
        const segments = new Map();
        for (const token of tokens) { const key = `${token.row} ${token.segment}`; if (!segments.has(key)) segments.set(key, []); segments.get(key).push(token); }
        fill(below, el("p", {}, `${tokens.filter((token) => token.loss).length} ${word("carries").replace("#", tokens.length)}`),
          [...segments.values()].slice(0, 12).map((part) => el("p", { class: "tokens" }, part.map((token) => token.loss ? el("mark", {}, token.text) : token.text))));
      } catch (error) { fill(below, el("p", { class: "bad", role: "alert" }, error.message)); }
    };
    return el("div", {}, el("button", { type: "button", class: "small", onclick: look }, word("preview")), below);
  }

  async function start() {
    go.disabled = true;
    try {
      const job = await post("/api/runs", { text: text.value });
      say(word("started"));
      history.pushState(null, "", "/");
      dispatchEvent(new PopStateEvent("popstate"));
      return job;
    } catch (error) {
      say(error.message, true);
      go.disabled = false;
    }
  }

  async function send() {
    if (!picked.files.length) return;
    try {
      const made = await upload(picked.files[0]);
      fill(file, `${word("uploaded")} `, el("code", {}, made.path));
      const setting = found.stages.flatMap((stage) => stage.settings.filter((one) => one.given && Array.isArray(one.value) && ["demonstrations", "comparisons", "thumbs", "documents"].includes(one.name)).map((one) => `${stage.name}.${one.name}`))[0];
      if (setting) {
        const now = await post("/api/recipe/set", { text: text.value, setting, value: JSON.stringify([made.path]) });
        text.value = now.text;
        await check();
      }
    } catch (error) { say(error.message, true); }
  }

  async function measure() {
    fill(times, el("p", { role: "status" }, word("estimating")));
    try {
      const made = await post("/api/recipe/estimate", { text: text.value });
      fill(times, el("table", {}, el("tbody", {}, made.stages.map((row) => el("tr", {}, el("th", { scope: "row" }, row.stage), el("td", { class: "n" }, row.seconds === null ? word("unknown") : span(row.seconds)), el("td", {}, el("small", {}, row.from)))),
        el("tr", { class: "total" }, el("th", { scope: "row" }, word("together")), el("td", { class: "n" }, span(made.seconds)), el("td")))));
    } catch (error) { fill(times, el("p", { class: "bad", role: "alert" }, error.message)); }
  }
}
