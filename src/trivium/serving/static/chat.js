// The chat page. Whatever a model or a server says becomes text nodes, never markup.
import * as chats from "/chats.js";
import { draw as markdown } from "/markdown.js";
import { WORDS } from "/words.js";

const $ = (id) => document.getElementById(id);
const kept = { get: (name, store = localStorage) => { try { return store.getItem(name); } catch { return null; } },
               set: (name, value, store = localStorage) => { try { store.setItem(name, value); } catch { /* a private window */ } } };
let language = kept.get("language") ?? (navigator.language?.startsWith("zh") ? "zh" : "en");
let theme = kept.get("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
let models = [], server = { key_needed: false, feedback: false, title: "Trivium", greeting: "", ideas: [], from_scratch: false }, chat = chats.begin(), running = null, voting = null, duel = false, picture = null;
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
const EDIT = "M4 16l.8-3.600L13 4.200a1.700 1.700 0 0 1 2.400 0l.4.4a1.700 1.700 0 0 1 0 2.400L7.600 15.200z";
const COPY = "M7 7h9v9.500H7zM13 7V3.500H4V13h3", AGAIN = "M15.800 8A6.200 6.200 0 1 0 16 12M16 4v4h-4";

const draw = (node, text) => markdown(node, text, (source) => tool("copy", icon(COPY), async () => { await navigator.clipboard?.writeText(source); say(word("copied")); }));

const modelOf = (name) => models.find((model) => model.id === name);
const stageOf = (model) => model?.stage ? (word("stages")[model.stage] ?? model.stage) : "";
const say = (text) => { $("said").textContent = text; };

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
  for (const node of document.querySelectorAll("[data-title]")) { node.title = word(node.dataset.title); node.setAttribute("aria-label", word(node.dataset.title)); }
  for (const node of document.querySelectorAll("[data-label]")) { node.setAttribute("aria-label", word(node.dataset.label)); if (node.placeholder !== undefined) node.placeholder = word(node.dataset.label); }
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
  $("rival").hidden = !duel;
  if (duel !== ($("model").options[0]?.value === "")) choices();
  const sees = duel ? models.some((model) => model.sees) : modelOf($("model").value)?.sees;
  $("attach").hidden = !sees;
  if (!sees) attach(null);
  $("model").disabled = models.length < 2;
}

// The models to choose from; side by side also whichever comes, for both.
function choices() {
  for (const id of ["model", "other"]) {
    const before = $(id).value;
    $(id).replaceChildren(...(duel ? [make("option", { value: "" }, word("anyModel"))] : []), ...models.map((model) => make("option", { value: model.id }, model.id)));
    $(id).value = !duel && before === "" ? kept.get("model") ?? models[0]?.id : duel ? "" : before;
    if (!$(id).value && !duel && models.length) $(id).value = models[0].id;
  }
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

// What is asked beside the messages; what is left empty is left out.
function parameters() {
  const given = { temperature: Number($("temperature").value), max_tokens: Number($("length").value) };
  for (const name of ["top_p", "top_k", "min_p", "repetition_penalty", "seed"]) if ($(name).value.trim() !== "" && $(name).validity.valid) given[name] = Number($(name).value);
  const stops = $("stop").value.split("\n").filter(Boolean).slice(0, 4);
  if (stops.length) given.stop = stops;
  return given;
}

async function ask(model, conversation, signal, given) {
  const response = await fetch("/v1/chat/completions", { method: "POST", headers: headers(), signal, body: JSON.stringify({
    model, messages: conversation, user: who, stream: true, stream_options: { include_usage: true }, ...given }) });
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const error = new Error(response.status === 429 ? word("busy") : response.status === 401 ? word("noKey") : body?.error?.message ?? response.statusText);
  error.code = body?.error?.code;
  throw error;
}

const ROOM = 64; // tokens that an answer should have, before older turns are given up for it

// An answer's stream. Where the context is full, the answer gets the room that is left; where there is none, the oldest turns go, and `left` says how many.
async function fitting(model, conversation, signal) {
  const given = parameters();
  for (let sent = conversation, left = 0; ;) {
    try {
      return { response: await ask(model, sent, signal, given), sent, left };
    } catch (error) {
      if (error.code !== "context_length_exceeded") throw error;
      const [, context, prompt] = error.message.match(/(\d+) tokens; the prompt has (\d+)/) ?? [0, 0, 0], room = context - prompt;
      const first = sent[0]?.role === "system" ? 1 : 0, next = sent.findIndex((message, place) => place > first && message.role === "user");
      if (room >= (next < 0 ? 1 : Math.min(ROOM, given.max_tokens))) { given.max_tokens = Math.min(room, given.max_tokens); continue; }
      if (next < 0) { error.tooLong = true; throw error; }
      left += next - first;
      sent = [...sent.slice(0, first), ...sent.slice(next)];
    }
  }
}

async function* streamed(response) {
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
      if (body.usage) yield { text: "", thought: "", usage: body.usage };
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
  const card = { node, words, tools, model, text: "", thought: "", reason: null, signature: null, failed: null, sent: [], left: 0, usage: null, seconds: 0 };
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
    const { response, sent, left } = await fitting(card.model, conversation, signal);
    Object.assign(card, { sent, left });
    let first = 0;
    for await (const { text, thought, reason, signature, usage } of streamed(response)) {
      const follow = atEnd();
      if (!first && (text || thought)) first = performance.now();
      card.text += text;
      card.thought += thought;
      card.reason = reason ?? card.reason;
      card.signature = signature ?? card.signature;
      card.usage = usage ?? card.usage;
      if (first) card.seconds = (performance.now() - first) / 1000;
      if (thought) think(card);
      if (text) draw(card.words, card.text);
      if (follow) toEnd();
    }
  } catch (error) {
    if (signal.aborted) card.reason = "stopped";
    else [card.failed, card.tooLong] = [error instanceof TypeError ? word("lost") : error.message, Boolean(error.tooLong)];
  }
  card.node.classList.remove("writing");
  notes(card);
}

// What there is to say below an answer: why it ended, what the model no longer saw, how quick it was and how full its context is.
function notes(card) {
  const note = card.failed ? null : card.reason === "stopped" ? word("stopped") : card.reason === "length" ? word("cut") : card.text ? null : word("empty");
  if (card.left) card.node.insertBefore(make("p", { class: "note trimmed" }, word("trimmed").replace("#", card.left)), card.words);
  if (note) card.tools.append(make("span", { class: "note" }, note));
  const known = modelOf(card.model);
  if (!card.usage || !known) return;
  const speed = card.seconds > 0.05 && card.usage.completion_tokens > 1 ? `${Math.round((card.usage.completion_tokens - 1) / card.seconds)} ${word("speed")}` : "";
  const gauge = make("meter", { min: 0, max: known.context, value: card.usage.total_tokens, high: known.context * 0.9, title: word("context"), "aria-label": word("context") });
  card.tools.append(make("span", { class: "note usage" }, speed, gauge, `${card.usage.total_tokens} / ${known.context}`));
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

function finishTools(card, again) {
  const buttons = [];
  if (card.signature) {
    const thumbs = [["up", true, UP], ["down", false, DOWN]].map(([name, label, path]) => tool(name, icon(path), async (event) => {
      const button = event.currentTarget, on = button.getAttribute("aria-pressed") !== "true";
      try {
        await tell("/feedback/thumb", { messages: card.sent, completion: card.said(), label: on ? label : null, model: card.model, signature: card.signature });
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
  const mine = chats.add(chat, { role: "user", content: seen ? parts : text });
  chats.save(chat);
  $("log").append(asked(mine));
  await reply();
}

// One's own message, with what can be done about it.
function asked(mine) {
  const text = chats.words(mine.content), seen = typeof mine.content === "string" ? [] : mine.content.filter((part) => part.type === "image_url").map((part) => part.image_url.url);
  const tools = make("div", { class: "tools" }, ...switcher(mine), tool("edit", icon(EDIT), () => edit(turn, mine)));
  const turn = make("div", { class: "turn mine", "data-node": mine.id }, make("div", { class: "words", "aria-label": word("you") }, ...seen.map((src) => make("img", { src, alt: word("picture") })), text), tools);
  return turn;
}

// ‹ 2/3 ›: the versions of a message.
function switcher(one) {
  const every = chats.versions(chat, one), at = every.findIndex((other) => other.id === one.id);
  if (every.length < 2) return [];
  const to = (place) => () => { if (running || voting) return; chat.leaf = chats.below(chat, every[place]); chats.save(chat); show(); };
  return [tool("earlierVersion", "‹", to(at - 1), { disabled: at === 0 }), make("span", { class: "note" }, `${at + 1}/${every.length}`), tool("laterVersion", "›", to(at + 1), { disabled: at === every.length - 1 })];
}

function edit(turn, mine) {
  if (running || voting) return;
  const box = make("textarea", { rows: Math.min(12, chats.words(mine.content).split("\n").length + 1), "aria-label": word("edit") });
  box.value = chats.words(mine.content);
  const done = () => {
    const text = box.value.trim();
    if (!text) return;
    chat.leaf = mine.parent;
    chats.add(chat, { role: "user", content: typeof mine.content === "string" ? text : [...mine.content.filter((part) => part.type !== "text"), { type: "text", text }] });
    chats.save(chat);
    show();
    reply();
  };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.stopPropagation(); show(); }
    else if (event.key === "Enter" && !event.shiftKey && !composing(event)) { event.preventDefault(); done(); }
  });
  turn.replaceChildren(make("form", { class: "editing", onsubmit: (event) => { event.preventDefault(); done(); } }, box, make("div", { class: "tools" }, make("button", { type: "button", onclick: show }, word("cancel")), make("button", { class: "main" }, word("send")))));
  box.focus();
}

// The chat as it is kept, from its first message to the one that is shown last.
function show() {
  $("log").replaceChildren();
  const shown = chats.path(chat);
  $("welcome").hidden = shown.length > 0;
  for (const one of shown) {
    if (one.role === "user") { $("log").append(asked(one)); continue; }
    const card = Object.assign(answerCard("", one.model), { text: one.content, thought: one.thought ?? "", reason: one.reason ?? null, signature: one.signature ?? null, sent: one.sent ?? [], left: one.left ?? 0, usage: one.usage ?? null, seconds: one.seconds ?? 0 });
    card.node.classList.remove("writing");
    if (card.thought) think(card);
    draw(card.words, card.text);
    notes(card);
    finishAnswer(card, one);
    $("log").append(make("div", { class: "turn", "data-node": one.id }, card.node));
  }
  if (shown.at(-1)?.role === "user" && !running) $("log").append(make("div", { class: "turn" }, make("button", { type: "button", class: "unanswered", onclick: (event) => { event.currentTarget.parentNode.remove(); reply(); } }, word("retry"))));
  showRunning();
}

const keepable = (card) => ({ role: "assistant", content: card.text, model: card.model, thought: card.thought, reason: card.reason, signature: card.signature, sent: card.sent, left: card.left, usage: card.usage, seconds: card.seconds });

function finishAnswer(card, one) {
  finishTools(card, () => { if (running || voting) return; chat.leaf = one.parent; show(); $("log").querySelector(".unanswered")?.parentNode.remove(); reply(); });
  card.tools.prepend(...switcher(one));
}

async function reply() {
  const here = chat, system = $("system").value.trim(), blind = duel;
  chat.system = system;
  const conversation = [...(system ? [{ role: "system", content: system }] : []), ...chats.conversation(chat)];
  const both = blind ? pairOfModels() : [$("model").value];
  const cards = both.map((model, place) => answerCard(blind ? "AB"[place] : "", model));
  const turn = make("div", { class: "turn" }, blind ? make("div", { class: "pair" }, ...cards.map((card) => card.node)) : cards[0].node);
  $("log").append(turn);
  toEnd();
  running = new AbortController();
  showRunning();
  const signal = running.signal;
  await Promise.all(cards.map((card) => fill(card, conversation, signal)));
  running = null;
  if (!turn.isConnected || here !== chat) { showRunning(); return; } // another chat was begun meanwhile: this answer is no part of it
  const anew = () => { if (running || voting) return; turn.remove(); reply(); };
  const failed = cards.filter((card) => card.failed);
  if (failed.some((card) => card.tooLong)) giveBack(turn, failed[0]);
  else if (failed.length) for (const card of failed) fault(card, anew);
  else if (!blind) {
    const one = chats.add(chat, keepable(cards[0]));
    finishAnswer(cards[0], one);
    say(cards[0].text);
  } else if (signal.aborted || cards.some((card) => !card.text) || cards[0].said() === cards[1].said()) { // nothing to compare
    for (const card of cards) card.reveal();
    const best = cards.find((card) => card.text) ?? cards[0];
    if (cards[0].text && cards[0].said() === cards[1].said()) turn.append(make("p", { class: "note" }, word("alike")));
    finishAnswer(best, chats.add(chat, keepable(best)));
  } else vote(turn, cards);
  chats.save(chat);
  showRunning();
  toEnd();
  if (!voting) $("text").focus({ preventScroll: true });
}

// A message that no model could take goes back to where it was written.
function giveBack(turn, card) {
  const mine = chats.node(chat, chat.leaf);
  turn.previousElementSibling?.remove();
  turn.remove();
  chat.nodes = chat.nodes.filter((one) => one !== mine);
  chat.leaf = mine.parent;
  $("text").value = chats.words(mine.content);
  $("refused").textContent = `${word("tooLong")} (${card.failed})`;
  $("refused").hidden = false;
  $("welcome").hidden = chat.leaf !== null;
  say(word("tooLong"));
  fit();
}

function pairOfModels() {
  const shown = chats.path(chat).some((message) => Array.isArray(message.content)), able = models.filter((model) => model.sees || !shown);
  const names = able.filter((model) => model.chat).map((model) => model.id);
  const pool = names.length > 1 ? names : able.map((model) => model.id);
  const shuffled = pool.map((name) => [Math.random(), name]).sort(([a], [b]) => a - b).map(([, name]) => name);
  const given = [$("model").value, $("other").value].filter((name) => name && able.some((model) => model.id === name));
  const rest = shuffled.filter((name) => !given.includes(name));
  const pair = [...given, ...rest, ...given, shuffled[0]].slice(0, 2);
  return Math.random() < 0.5 ? pair : pair.reverse(); // whichever was chosen, which is which stays hidden
}

function vote(turn, cards) {
  const choices = [[0, "1"], [1, "2"], ["tie", "3"], ["bad", "4"], [null, "5"]];
  const buttons = choices.map(([better, key]) => make("button", { type: "button", ...(better === null ? { class: "quiet" } : {}), onclick: () => decide(better) },
    ...(typeof better === "number" ? [make("span", { class: "letter" }, "AB"[better]), word("left")] : [word(better ?? "noVote")]), make("kbd", {}, key)));
  const box = make("fieldset", { class: "vote" }, make("legend", {}, word("better")), ...buttons);
  turn.append(box);
  const signed = cards.every((card) => card.signature) && JSON.stringify(cards[0].sent) === JSON.stringify(cards[1].sent); // answers to the same that the server takes feedback on
  const decide = async (better) => {
    for (const button of buttons) button.disabled = true;
    try {
      if (signed && better !== null) await tell("/feedback/choice", { messages: cards[0].sent, responses: cards.map((card) => card.said()), better, models: cards.map((card) => card.model), signatures: cards.map((card) => card.signature) });
    } catch (error) { // whatever refused it, the talk goes on: without a vote, or by trying again
      for (const button of buttons) button.disabled = false;
      box.querySelector("legend").textContent = error.message;
      say(error.message);
      return;
    }
    if (!turn.isConnected) return;
    voting = null;
    const winner = better === 1 ? 1 : 0;
    const one = chats.add(chat, keepable(cards[winner]));
    cards.forEach((card, place) => {
      card.reveal();
      if (place === winner) finishAnswer(card, one); else finishTools(card, null);
      if (typeof better === "number") card.node.classList.add(place === winner ? "won" : "lost");
    });
    chats.save(chat);
    box.replaceChildren(make("span", { class: "note" }, signed && better !== null ? word("thanks") : ""));
    say(`${cards[0].model} / ${cards[1].model}. ${signed && better !== null ? word("thanks") : ""}`);
    showRunning();
    $("text").focus({ preventScroll: true });
  };
  voting = (key) => { const found = choices.find(([, k]) => k === key); if (found && !buttons[0].disabled) decide(found[0]); };
  buttons[0].focus({ preventScroll: true });
}

// controls

// Whether a key belongs to a text that an input method is still composing. Safari says so by the key's number alone.
const composing = (event) => event.isComposing || event.keyCode === 229;

function fit() {
  const box = $("text");
  if (!CSS.supports("field-sizing", "content")) { box.rows = Math.min(10, box.value.split("\n").length); }
  showRunning();
}
function togglePanel(open) { $("panel").hidden = !open; $("options").setAttribute("aria-expanded", String(open)); }
function clear() {
  go(chats.begin());
  attach(null);
  $("text").focus();
}

// Show another chat.
function go(other) {
  running?.abort();
  voting = null;
  chat = other;
  kept.set("chat", chat.id);
  if (chat.nodes.length) $("system").value = chat.system;
  const last = chats.path(chat).findLast((one) => one.model)?.model;
  if (!duel && modelOf(last)) { $("model").value = last; showModel(); }
  show();
  toEnd();
}

// the chats that are kept

async function listChats() {
  const found = await chats.all(), text = $("chats-find").value.trim().toLowerCase();
  const fitting = found.filter((one) => !text || one.title.toLowerCase().includes(text) || one.nodes.some((node) => chats.words(node.content).toLowerCase().includes(text)));
  $("chats-list").replaceChildren(...fitting.map((one) => make("li", {},
    make("button", { type: "button", class: "name", "aria-current": one.id === chat.id && "true", onclick: () => { go(one); toggleChats(false); } }, one.title || word("newChat")),
    tool("rename", icon(EDIT), (event) => rename(one, event.currentTarget.parentNode)), tool("saveMarkdown", "MD", () => download(`${one.title || "chat"}.md`, chats.asMarkdown(one, word("you")), "text/markdown")),
    tool("saveJson", "JSON", () => download(`${one.title || "chat"}.json`, JSON.stringify(one, null, 1), "application/json")),
    tool("remove", icon("M5 5l10 10M15 5 5 15"), async () => { await chats.remove(one.id); if (one.id === chat.id) clear(); listChats(); }))));
  if (!fitting.length) $("chats-list").append(make("li", { class: "note" }, word("noChats")));
}
function rename(one, item) {
  const box = make("input", { maxlength: 200, "aria-label": word("rename") });
  box.value = one.title;
  const done = async () => { one.title = box.value.trim() || one.title; if (one.id === chat.id) chat.title = one.title; await chats.save(one); listChats(); };
  box.addEventListener("keydown", (event) => { if (event.key === "Enter" && !composing(event)) done(); if (event.key === "Escape") { event.stopPropagation(); listChats(); } });
  item.replaceChildren(box);
  box.focus();
}
function download(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: name.replace(/[\\/:*?"<>|\n]+/g, "-") }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
function toggleChats(open) {
  $("chats").hidden = !open;
  $("history").setAttribute("aria-expanded", String(open));
  if (open) { listChats(); $("chats-find").focus(); } else $("history").focus();
}
$("history").addEventListener("click", () => toggleChats($("chats").hidden));
$("chats-find").addEventListener("input", listChats);
$("chats-keep").checked = chats.keeps();
$("chats-keep").addEventListener("change", async () => { chats.keep($("chats-keep").checked); if (!$("chats-keep").checked) { await chats.forget(); say(word("forgotten")); } listChats(); });

// system messages that are kept by name

const presets = () => { try { return JSON.parse(kept.get("presets")) ?? {}; } catch { return {}; } };
function listPresets() {
  $("preset").replaceChildren(make("option", { value: "" }, word("preset")), ...Object.keys(presets()).map((name) => make("option", { value: name }, name)));
}
$("preset").addEventListener("change", () => { if ($("preset").value) $("system").value = presets()[$("preset").value]; });
$("preset-keep").addEventListener("click", () => {
  const text = $("system").value.trim();
  if (!text) return;
  kept.set("presets", JSON.stringify({ ...presets(), [text.slice(0, 40)]: text }));
  listPresets();
  $("preset").value = text.slice(0, 40);
});
$("preset-drop").addEventListener("click", () => {
  const { [$("preset").value]: _, ...rest } = presets();
  kept.set("presets", JSON.stringify(rest));
  listPresets();
});

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
  if (event.key === "Enter" && !event.shiftKey && !composing(event)) { event.preventDefault(); send($("text").value); }
});
$("panel").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { if (!$("chats").hidden) toggleChats(false); else if (running) running.abort(); else if (!$("panel").hidden) { togglePanel(false); $("options").focus(); } }
  if (voting && !event.ctrlKey && !event.metaKey && !event.altKey && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) voting(event.key);
});
$("duel").addEventListener("click", () => {
  duel = !duel;
  $("duel").setAttribute("aria-pressed", String(duel));
  $("log").classList.toggle("duel", duel);
  translate();
});
$("fresh").addEventListener("click", clear);
$("options").addEventListener("click", () => togglePanel($("panel").hidden));
$("model").addEventListener("change", () => { if (!duel) kept.set("model", $("model").value); showModel(); $("text").focus(); });
$("language").addEventListener("click", () => { language = language === "zh" ? "en" : "zh"; kept.set("language", language); translate(); showRunning(); });
$("theme").addEventListener("click", () => { theme = theme === "dark" ? "light" : "dark"; kept.set("theme", theme); document.documentElement.dataset.theme = theme; });
$("key").addEventListener("change", () => { kept.set("key", $("key").value.trim(), sessionStorage); load(); });
for (const name of ["temperature", "length"]) {
  const show = () => { $(`${name}-is`).textContent = $(name).value; };
  $(name).addEventListener("input", show);
  show();
}

// What keeps the page from its models, seen and heard.
function trouble(name) {
  say(word(name));
  $("refused").replaceChildren(make("span", {}, word(name)), make("button", { type: "button", onclick: load }, word("retry")));
  $("refused").hidden = false;
}

async function load() {
  try {
    server = await (await fetch("/settings.json")).json();
    $("key-row").hidden = !server.key_needed;
    $("temperature").value = server.temperature;
    $("temperature").dispatchEvent(new Event("input"));
    translate();
    const response = await fetch("/v1/models", { headers: headers() });
    if (response.status === 401) { togglePanel(true); $("key").focus(); trouble("noKey"); return; }
    models = (await response.json()).data.filter((model) => !model.embeds);
  } catch { trouble("lost"); return; }
  $("refused").hidden = true;
  choices();
  const last = kept.get("model");
  if (modelOf(last)) $("model").value = last;
  $("length").max = Math.min(1024, Math.max(32, Math.floor(Math.min(...models.map((model) => model.context)) / 2 / 16) * 16));
  $("length").dispatchEvent(new Event("input"));
  showModel();
  listPresets();
  if (!chat.nodes.length && !running) {
    const last = (await chats.all()).find((one) => one.id === kept.get("chat") && one.nodes.length);
    if (last && !chat.nodes.length && !running) go(last);
  }
  showRunning();
}

document.documentElement.dataset.theme = theme;
translate();
showRunning();
load();
