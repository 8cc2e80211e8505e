// What models answered, side by side: search, filters, and a link to a single row.
import { el, fill, get, say } from "./dom.js";
import { word } from "./words.js";

const PAGE = 20;

export function answersPanel(run, stages) {
  const given = new URLSearchParams(location.search);
  const asked = { stage: stages.includes(given.get("stage")) ? given.get("stage") : stages[0], text: given.get("text") || "", right: given.get("right") || "", wrong: given.get("wrong") || "", order: given.get("order") || "", first: Number(given.get("first")) || 0, count: PAGE };
  const tools = el("div", { class: "row" }), list = el("div"), count = el("p", { class: "soft", role: "status" });
  const node = el("details", { open: given.has("stage") }, el("summary", {}, word("answers")), tools, count, list);
  node.addEventListener("toggle", () => { if (node.open && !list.childElementCount) show(); });
  let models = [], ticket = 0;

  async function show() {
    const mine = ++ticket;
    let found;
    try { found = await get(`/api/runs/${encodeURIComponent(run)}/answers`, asked); } catch (error) { say(error.message, true); return; }
    if (mine !== ticket) return;
    if (JSON.stringify(models) !== JSON.stringify(found.models)) { models = found.models; drawTools(); }
    const last = Math.min(found.total, asked.first + PAGE);
    fill(count, `${found.total ? asked.first + 1 : 0}–${last} ${word("of")} ${found.total} ${word("rows")}`);
    fill(list, found.rows.map((row) => el("article", { id: `row-${row.number}` },
      el("p", { class: "ask" }, (row.prompt || []).map((message) => typeof message.content === "string" ? message.content : JSON.stringify(message.content)).join("\n")),
      row.answer || row.truth?.answers ? el("p", { class: "soft" }, `${word("truth")}: ${row.answer || row.truth.answers.join(", ")}`) : null,
      el("div", { class: "answers" }, Object.entries(row.answers).map(([name, text], place) => el("div", { class: "answer", colour: place % 8 }, el("h3", {}, name, " ",
        name in row.right ? el("span", { class: row.right[name] ? "yes" : "no" }, row.right[name] ? `✓ ${word("right")}` : `✗ ${word("wrong")}`) : null), el("p", { class: "text" }, text)))),
      el("a", { href: link({ ...asked, text: "", right: "", wrong: "", order: "", first: row.number }), class: "soft" }, word("link")))),
      el("div", { class: "row" },
        asked.first > 0 ? el("button", { type: "button", onclick: () => { asked.first = Math.max(0, asked.first - PAGE); show(); } }, word("previous")) : null,
        last < found.total ? el("button", { type: "button", onclick: () => { asked.first += PAGE; show(); } }, word("next")) : null));
    history.replaceState(null, "", link(asked));
  }

  const link = (query) => {
    const set = new URLSearchParams(Object.entries(query).filter(([key, value]) => value && key !== "count"));
    return `/run/${encodeURIComponent(run)}?${set}`;
  };

  function drawTools() {
    const choose = (key, label, options) => el("label", {}, label, " ", el("select", { onchange: (event) => { asked[key] = event.target.value; asked.first = 0; show(); } },
      options.map(([value, text]) => el("option", { value, selected: asked[key] === value }, text))));
    const any = [["", word("any")], ...models.map((name) => [name, name])];
    let later;
    fill(tools, stages.length > 1 ? choose("stage", word("stage"), stages.map((name) => [name, name])) : null,
      el("input", { type: "search", value: asked.text, placeholder: word("find"), "aria-label": word("find"), oninput: (event) => { clearTimeout(later); later = setTimeout(() => { asked.text = event.target.value; asked.first = 0; show(); }, 200); } }),
      choose("right", word("is_right"), any), choose("wrong", word("is_wrong"), any),
      choose("order", word("order"), [["", word("asked")], ...["different", "longest", "shortest"].map((key) => [key, word(key)])]));
  }

  if (node.open) show();
  return node;
}
