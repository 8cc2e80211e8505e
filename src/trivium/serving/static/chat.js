// The chat page. Whatever a model or a server says becomes text nodes, never markup.
import { WORDS } from "/words.js";

const $ = (id) => document.getElementById(id);
const kept = { get: (name, store = localStorage) => { try { return store.getItem(name); } catch { return null; } },
               set: (name, value, store = localStorage) => { try { store.setItem(name, value); } catch { /* a private window */ } } };
let language = kept.get("language") ?? (navigator.language?.startsWith("zh") ? "zh" : "en");
let theme = kept.get("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
let models = [], server = { key_needed: false, feedback: false, title: "Trivium", greeting: "", ideas: [], from_scratch: false }, messages = [], running = null, voting = null, duel = false, picture = null;
const word = (name) => WORDS[language][name];
let who = kept.get("who");
if (!who) kept.set("who", who = crypto.getRandomValues(new Uint32Array(3)).reduce((text, n) => text + n.toString(36), "visitor-"));

// drawing

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function icon(...paths) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  for (const d of paths) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}
const UP = "M6 9v7.5H3.5V9zM6 9l3.2-6c1.2 0 2 .9 1.8 2.100L10.400 8h4.600a1.600 1.600 0 0 1 1.600 1.900l-1 5.200a1.800 1.800 0 0 1-1.800 1.400H6";
const DOWN = "M6 11V3.500H3.500V11zM6 11l3.200 6c1.200 0 2-.9 1.800-2.100L10.400 12h4.600a1.600 1.600 0 0 0 1.600-1.900l-1-5.200a1.800 1.800 0 0 0-1.800-1.400H6";
const COPY = "M7 7h9v9.500H7zM13 7V3.500H4V13h3", AGAIN = "M15.800 8A6.200 6.200 0 1 0 16 12M16 4v4h-4";

function inline(parent, text) {
  for (const piece of text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
    if (piece.length > 2 && piece.startsWith("`") && piece.endsWith("`")) parent.append(make("code", {}, piece.slice(1, -1)));
    else if (piece.length > 4 && piece.startsWith("**") && piece.endsWith("**")) parent.append(make("strong", {}, piece.slice(2, -2)));
    else if (piece) parent.append(piece);
  }
}

function draw(node, text) {
  node.replaceChildren();
  text.split(/^```[^\n]*$\n?/m).forEach((block, number) => {
    if (number % 2) node.append(make("pre", { tabindex: "0" }, make("code", {}, block.replace(/\n$/, ""))));
    else for (const paragraph of block.split(/\n{2,}/)) if (paragraph.trim()) { const p = make("p"); inline(p, paragraph.trim()); node.append(p); }
  });
}

const modelOf = (name) => models.find((model) => model.id === name);
const stageOf = (model) => model?.stage ? (word("stages")[model.stage] ?? model.stage) : "";
const say = (text) => { $("said").textContent = text; };

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
  for (const node of document.querySelectorAll("[data-title]")) { node.title = word(node.dataset.title); node.setAttribute("aria-label", word(node.dataset.title)); }
  $("language").textContent = word("other");
  $("language").title = word("otherTitle");
  $("text").placeholder = word("placeholder");
  document.title = $("title").textContent = server.title;
  if (server.greeting) $("welcome").querySelector("h1").textContent = server.greeting;
  $("welcome").querySelector("p").textContent = word(duel ? "introDuel" : server.from_scratch ? "introScratch" : "intro");
  $("ideas").replaceChildren(...server.ideas.map((idea) => make("button", { type: "button", onclick: () => send(idea) }, idea)));
  showModel();
}

function showModel() {
  $("stage").textContent = duel ? "" : stageOf(modelOf($("model").value));
  const sees = duel ? models.some((model) => model.sees) : modelOf($("model").value)?.sees;
  $("attach").hidden = !sees;
  if (!sees) attach(null);
  $("model").disabled = duel || models.length < 2;
}

function showRunning() {
  const button = $("send");
  button.replaceChildren(running ? icon("M6 6h8v8H6z") : icon("M10 16V4.500M4.800 9.500 10 4.300l5.200 5.200"));
  button.dataset.title = running ? "stop" : "send";
  button.title = word(button.dataset.title);
  button.setAttribute("aria-label", button.title);
  button.disabled = !running && (Boolean(voting) || !($("text").value.trim() || picture));
  $("log").setAttribute("aria-busy", String(Boolean(running)));
}

const atEnd = () => $("talk").scrollHeight - $("talk").scrollTop - $("talk").clientHeight < 90;
const toEnd = () => { $("talk").scrollTop = $("talk").scrollHeight; };

// talking to the server

const headers = () => ({ "content-type": "application/json", ...(kept.get("key", sessionStorage) ? { authorization: `Bearer ${kept.get("key", sessionStorage)}` } : {}) });

async function* streamed(model, conversation, signal) {
  const response = await fetch("/v1/chat/completions", { method: "POST", headers: headers(), signal, body: JSON.stringify({
    model, messages: conversation, user: who, stream: true, temperature: Number($("temperature").value), max_tokens: Number($("length").value) }) });
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw new Error(response.status === 429 ? word("busy") : response.status === 401 ? word("noKey") : body?.error?.message ?? response.statusText);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event === "data: [DONE]") return;
      const body = JSON.parse(event.slice(6));
      if (body.error) throw new Error(body.error.message);
      if (body.choices[0]) yield { text: body.choices[0].delta.content ?? "", thought: body.choices[0].delta.reasoning_content ?? "", reason: body.choices[0].finish_reason, signature: body.choices[0].signature };
    }
  }
}

async function tell(path, body) {
  const response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify({ ...body, who }) });
  if (!response.ok) throw new Error((await response.json().catch(() => null))?.error?.message ?? response.statusText);
}

// one answer: a card that fills

function answerCard(letter, model) {
  const by = make("div", { class: "by" }), words = make("div", { class: "words" }), tools = make("div", { class: "tools" });
  const node = make("article", { class: "card writing", "aria-label": letter ? `${word("answer")} ${letter}` : model }, by, words, tools);
  const card = { node, words, tools, model, text: "", thought: "", reason: null, signature: null, failed: null };
  card.said = () => card.thought ? `<think>\n${card.thought}\n</think>\n\n${card.text}` : card.text; // as a row has it
  card.reveal = () => {
    const known = modelOf(card.model);
    by.replaceChildren(...(letter ? [make("span", { class: "letter" }, letter)] : []), make("b", {}, card.model), ...(stageOf(known) ? [make("span", { class: "stage" }, stageOf(known))] : []));
  };
  if (letter) by.append(make("span", { class: "letter" }, letter));
  else card.reveal();
  return card;
}

async function fill(card, conversation, signal) {
  try {
    for await (const { text, thought, reason, signature } of streamed(card.model, conversation, signal)) {
      const follow = atEnd();
      card.text += text;
      card.thought += thought;
      card.reason = reason ?? card.reason;
      card.signature = signature ?? card.signature;
      if (thought) think(card);
      if (text) draw(card.words, card.text);
      if (follow) toEnd();
    }
  } catch (error) {
    if (signal.aborted) card.reason = "stopped";
    else card.failed = error instanceof TypeError ? word("lost") : error.message;
  }
  card.node.classList.remove("writing");
  const note = card.failed ? null : card.reason === "stopped" ? word("stopped") : card.reason === "length" ? word("cut") : card.text ? null : word("empty");
  if (note) card.tools.append(make("span", { class: "note" }, note));
}

function think(card) {
  if (!card.thoughts) {
    card.thoughts = make("div", { class: "words" });
    card.node.insertBefore(make("details", { class: "thought" }, make("summary", {}, word("thought")), card.thoughts), card.words);
  }
  draw(card.thoughts, card.thought);
}

function fault(card, retry) {
  card.node.insertBefore(make("div", { class: "fault", role: "alert" }, make("span", {}, card.failed), make("button", { type: "button", onclick: retry }, word("retry"))), card.tools);
  if (card.failed === word("noKey")) { togglePanel(true); $("key").focus(); }
}

function tool(name, drawn, act, extra = {}) {
  return make("button", { type: "button", class: `quiet ${name}`, title: word(name), "aria-label": word(name), onclick: act, ...extra }, drawn);
}

function finishTools(card, conversation, again) {
  const buttons = [];
  if (card.signature) {
    const thumbs = [["up", true, UP], ["down", false, DOWN]].map(([name, label, path]) => tool(name, icon(path), async (event) => {
      const button = event.currentTarget, on = button.getAttribute("aria-pressed") !== "true";
      try {
        await tell("/feedback/thumb", { messages: conversation, completion: card.said(), label: on ? label : null, model: card.model, signature: card.signature });
        for (const other of thumbs) other.setAttribute("aria-pressed", String(on && other === button));
        say(word(on ? "thanks" : "taken"));
      } catch (error) { say(error.message); card.tools.append(make("span", { class: "note" }, error.message)); }
    }, { "aria-pressed": "false" }));
    buttons.push(...thumbs);
  }
  if (card.text) buttons.push(tool("copy", icon(COPY), async () => { await navigator.clipboard?.writeText(card.text); say(word("copied")); }));
  if (again) buttons.push(tool("again", icon(AGAIN), again));
  card.tools.prepend(...buttons);
}

// turns

const LARGEST = 256; // pixels of a picture's longer side: the models that see look at far fewer, and every turn sends all pictures again

function attach(url) {
  picture = url;
  $("attached").hidden = !url;
  $("refused").hidden = true;
  if (url) $("attached-picture").src = url;
  else $("attached-picture").removeAttribute("src");
  $("file").value = "";
  showRunning();
}

async function choose(file) {
  if (!file) return;
  try {
    const bitmap = await createImageBitmap(file), scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
    const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    attach(canvas.toDataURL("image/png"));
    say(word("attached"));
    $("text").focus({ preventScroll: true });
  } catch {
    attach(null);
    $("refused").textContent = word("noPicture");
    $("refused").hidden = false;
    say(word("noPicture"));
  }
}

async function send(text) {
  text = text.trim();
  if (!(text || picture) || running || voting) return;
  $("welcome").hidden = true;
  $("text").value = "";
  const seen = picture;
  attach(null);
  fit();
  const parts = [...(seen ? [{ type: "image_url", image_url: { url: seen } }] : []), ...(text ? [{ type: "text", text }] : [])];
  messages.push({ role: "user", content: seen ? parts : text });
  $("log").append(make("div", { class: "turn mine" }, make("div", { class: "words", "aria-label": word("you") }, ...(seen ? [make("img", { src: seen, alt: word("picture") })] : []), text)));
  await reply();
}

async function reply() {
  const system = $("system").value.trim(), blind = duel;
  const conversation = [...(system ? [{ role: "system", content: system }] : []), ...messages];
  const both = blind ? pairOfModels() : [$("model").value];
  const cards = both.map((model, place) => answerCard(blind ? "AB"[place] : "", model));
  const turn = make("div", { class: "turn" }, blind ? make("div", { class: "pair" }, ...cards.map((card) => card.node)) : cards[0].node);
  for (const old of $("log").querySelectorAll(".again")) old.remove();
  $("log").append(turn);
  toEnd();
  running = new AbortController();
  showRunning();
  const signal = running.signal;
  await Promise.all(cards.map((card) => fill(card, conversation, signal)));
  running = null;
  if (!turn.isConnected) { showRunning(); return; } // a new chat was begun meanwhile: this answer is no part of it
  const anew = () => { if (running || voting) return; turn.remove(); if (messages.at(-1)?.role === "assistant") messages.pop(); reply(); };
  const failed = cards.filter((card) => card.failed);
  if (failed.length) for (const card of failed) fault(card, anew);
  else if (!blind) {
    messages.push({ role: "assistant", content: cards[0].text });
    finishTools(cards[0], conversation, anew);
    say(cards[0].text);
  } else if (signal.aborted || cards.some((card) => !card.text)) { // nothing to compare
    for (const card of cards) card.reveal();
    cards[1].tools.append(tool("again", icon(AGAIN), anew));
    messages.push({ role: "assistant", content: cards[0].text || cards[1].text });
  } else vote(turn, cards, conversation);
  showRunning();
  toEnd();
  if (!voting) $("text").focus({ preventScroll: true });
}

function pairOfModels() {
  const shown = messages.some((message) => Array.isArray(message.content)), able = models.filter((model) => model.sees || !shown);
  const names = able.filter((model) => model.chat).map((model) => model.id);
  const pool = names.length > 1 ? names : able.map((model) => model.id);
  const shuffled = pool.map((name) => [Math.random(), name]).sort(([a], [b]) => a - b).map(([, name]) => name);
  return [shuffled[0], shuffled[1] ?? shuffled[0]];
}

function vote(turn, cards, conversation) {
  const choices = [[0, "1"], [1, "2"], ["tie", "3"], ["bad", "4"]];
  const buttons = choices.map(([better, key]) => make("button", { type: "button", onclick: () => decide(better) },
    ...(typeof better === "number" ? [make("span", { class: "letter" }, "AB"[better]), word("left")] : [word(better)]), make("kbd", {}, key)));
  const box = make("fieldset", { class: "vote" }, make("legend", {}, word("better")), ...buttons);
  turn.append(box);
  const signed = cards.every((card) => card.signature); // answers that the server takes feedback on
  const decide = async (better) => {
    for (const button of buttons) button.disabled = true;
    try {
      if (signed) await tell("/feedback/choice", { messages: conversation, responses: cards.map((card) => card.said()), better, models: cards.map((card) => card.model), signatures: cards.map((card) => card.signature) });
    } catch (error) {
      for (const button of buttons) button.disabled = false;
      box.querySelector("legend").textContent = error.message;
      return;
    }
    if (!turn.isConnected) return;
    voting = null;
    const winner = better === 1 ? 1 : 0;
    cards.forEach((card, place) => {
      card.reveal();
      finishTools(card, conversation, null);
      if (typeof better === "number") card.node.classList.add(place === winner ? "won" : "lost");
    });
    messages.push({ role: "assistant", content: cards[winner].text });
    box.replaceChildren(make("span", { class: "note" }, signed ? word("thanks") : ""));
    say(`${cards[0].model} / ${cards[1].model}. ${word("thanks")}`);
    showRunning();
    $("text").focus({ preventScroll: true });
  };
  voting = (key) => { const found = choices.find(([, k]) => k === key); if (found && !buttons[0].disabled) decide(found[0]); };
  buttons[0].focus({ preventScroll: true });
}

// controls

function fit() {
  const box = $("text");
  if (!CSS.supports("field-sizing", "content")) { box.rows = Math.min(10, box.value.split("\n").length); }
  showRunning();
}
function togglePanel(open) { $("panel").hidden = !open; $("options").setAttribute("aria-expanded", String(open)); }
function clear() {
  running?.abort();
  voting = null;
  messages = [];
  attach(null);
  $("log").replaceChildren();
  $("welcome").hidden = false;
  $("text").focus();
  showRunning();
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); if (running) running.abort(); else send($("text").value); });
$("text").addEventListener("input", fit);
$("attach").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => choose($("file").files[0]));
$("detach").addEventListener("click", () => { attach(null); $("text").focus(); });
$("text").addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file && !$("attach").hidden) { event.preventDefault(); choose(file); }
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send($("text").value); }
});
$("panel").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { if (running) running.abort(); else if (!$("panel").hidden) { togglePanel(false); $("options").focus(); } }
  if (voting && !event.ctrlKey && !event.metaKey && !event.altKey && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) voting(event.key);
});
$("duel").addEventListener("click", () => {
  duel = !duel;
  $("duel").setAttribute("aria-pressed", String(duel));
  $("log").classList.toggle("duel", duel);
  clear();
  translate();
});
$("fresh").addEventListener("click", clear);
$("options").addEventListener("click", () => togglePanel($("panel").hidden));
$("model").addEventListener("change", () => { kept.set("model", $("model").value); showModel(); $("text").focus(); });
$("language").addEventListener("click", () => { language = language === "zh" ? "en" : "zh"; kept.set("language", language); translate(); showRunning(); });
$("theme").addEventListener("click", () => { theme = theme === "dark" ? "light" : "dark"; kept.set("theme", theme); document.documentElement.dataset.theme = theme; });
$("key").addEventListener("change", () => { kept.set("key", $("key").value.trim(), sessionStorage); load(); });
for (const name of ["temperature", "length"]) {
  const show = () => { $(`${name}-is`).textContent = $(name).value; };
  $(name).addEventListener("input", show);
  show();
}

async function load() {
  try {
    server = await (await fetch("/settings.json")).json();
    $("key-row").hidden = !server.key_needed;
    $("temperature").value = server.temperature;
    $("temperature").dispatchEvent(new Event("input"));
    translate();
    const response = await fetch("/v1/models", { headers: headers() });
    if (response.status === 401) { togglePanel(true); $("key").focus(); say(word("noKey")); return; }
    models = (await response.json()).data.filter((model) => !model.embeds);
  } catch { say(word("lost")); return; }
  $("model").replaceChildren(...models.map((model) => make("option", { value: model.id }, model.id)));
  const last = kept.get("model");
  if (modelOf(last)) $("model").value = last;
  $("length").max = Math.min(1024, Math.max(32, Math.floor(Math.min(...models.map((model) => model.context)) / 2 / 16) * 16));
  $("length").dispatchEvent(new Event("input"));
  showModel();
  showRunning();
}

document.documentElement.dataset.theme = theme;
translate();
showRunning();
load();
