// See through a model: its tokens, what it expects next, what its heads look at, scores and KL along an answer.
import { cell, el, fill, get, keep, number, post } from "./dom.js";
import { ticks } from "./plot.js";
import { word } from "./words.js";

const ROLES = ["system", "user", "assistant"], COLOURS = ["pieces", "probability", "entropy", "attention", "score", "kl"];

// What is looked at outlives a change of language.
const state = { run: "", models: [], left_out: [], model: "", reward: "", reference: "", kind: "chat", text: "", messages: [], tokens: [], from_text: [], rendered: null, next: null, attention: null, scores: null, divergence: null,
  faults: {}, at: 0, layer: 0, head: 0, colour: "pieces", example: 0 };

// A token as it can be seen: line ends and tabs by a sign, pieces of characters by their bytes.
const seen = (token) => token.text.includes("\ufffd") && token.bytes ? `⟨${token.bytes}⟩` : token.text === "" ? "∅" : token.text.replaceAll("\n", "↵\n").replaceAll("\t", "⇥");
const short = (token) => seen(token).replaceAll("\n", "").replaceAll(" ", "␣");
const percent = (share) => `${share >= 0.0995 ? (share * 100).toFixed(0) : share >= 1e-6 || !share ? Number((share * 100).toPrecision(2)) : (share * 100).toExponential(1)} %`;
const nats = (value) => `${number(value)} nats`;

export async function throughView(place) {
  const given = new URLSearchParams(location.search);
  const runs = (await get("/api/runs", { count: 200 })).runs.map((run) => run.name);
  const head = el("div"), input = el("div"), tokens = el("div"), parts = el("div"), strips = el("div");
  const said = el("p", { class: "soft", role: "status", "aria-live": "polite" });
  fill(place, el("h1", {}, word("through")), head, input, said, tokens, parts, strips);
  let ticket = 0, gone = false;

  const wanted = given.get("run") || state.run || runs[0];
  if (!wanted) { fill(head, el("p", {}, word("nothing_yet"))); return () => {}; }
  async function chooseRun(run, model) {
    let found;
    Object.assign(state, { run, models: [], left_out: [], model: "", tokens: [], next: null, attention: null, scores: null, divergence: null, rendered: null });
    said.textContent = word("looking_at_models");
    try { found = await get(`/api/runs/${encodeURIComponent(run)}/models`); } catch (error) { fault(error); return; }
    said.textContent = "";
    Object.assign(state, { models: found.models, left_out: found.left_out });
    const writers = state.models.filter((one) => one.kind === "language");
    if (!writers.length) return;
    await chooseModel((writers.find((one) => one.name === model) || writers.findLast((one) => one.made_from.reward) || writers.at(-1)).name);
  }

  async function chooseModel(name) {
    const one = state.models.find((other) => other.name === name), has = (other, kind) => state.models.some((model) => model.name === other && model.kind === kind);
    const rewards = state.models.filter((model) => model.kind === "reward").map((model) => model.name);
    const from = [one.made_from.reference, one.made_from.model].find((other) => has(other, "language"));
    Object.assign(state, { model: name, reference: from || "", reward: has(one.made_from.reward, "reward") ? one.made_from.reward : rewards.at(-1) || "", kind: one.stage === "pretrain" || !one.chats ? "text" : "chat",
      layer: Math.min(state.layer, one.layers - 1), head: Math.min(state.head, one.heads - 1) });
    clear();
    if (!state.messages.length) await example();
  }

  // A question that an examination of the run asked, with what the model answered.
  async function example() {
    state.messages = [{ role: "user", content: "Hello!" }, { role: "assistant", content: "Hello!" }];
    state.text = state.text || "Once upon a time";
    try {
      const stages = (await get(`/api/runs/${encodeURIComponent(state.run)}`)).stages.filter((stage) => stage.kind === "evaluate" && stage.digest);
      if (!stages.length) return;
      const page = await get(`/api/runs/${encodeURIComponent(state.run)}/answers`, { stage: stages.at(-1).name, first: state.example, count: 1 });
      const row = page.rows[0], answer = row && (row.answers[state.model] ?? Object.values(row.answers).at(-1));
      if (!row) { state.example = 0; return; }
      state.messages = [...(row.prompt || []).map((message) => ({ role: message.role, content: String(message.content) })), { role: "assistant", content: answer }];
      state.text = `${(row.prompt || []).at(-1)?.content ?? ""} ${answer}`.trim();
    } catch { /* the run has asked nothing */ }
  }

  function clear() { Object.assign(state, { tokens: [], from_text: [], rendered: null, next: null, attention: null, scores: null, divergence: null, faults: {}, at: 0 }); }
  function fault(error) { said.textContent = ""; fill(said, el("span", { class: "bad" }, error.message)); }

  const choice = (label, value, options, change, id) => el("label", {}, label, " ", el("select", { id, onchange: (event) => change(event.target.value) }, options.map(([key, text]) => el("option", { value: key, selected: key === value }, text))));

  // All anew; what was worked with keeps the focus.
  function again(id) {
    drawHead();
    drawInput();
    drawAll();
    document.getElementById(id)?.focus();
  }

  function drawHead() {
    const named = (kind) => state.models.filter((one) => one.kind === kind).map((one) => [one.name, one.name]), none = ["", word("none")];
    history.replaceState(null, "", `/through?${new URLSearchParams({ run: state.run, ...(state.model ? { model: state.model } : {}) })}`);
    fill(head, el("p", { class: "soft" }, word("through_about")), el("div", { class: "row" },
      choice(word("run"), state.run, [...new Set([state.run, ...runs])].map((name) => [name, name]), async (name) => { state.messages = []; state.text = ""; await chooseRun(name); again("t-run"); }, "t-run"),
      state.model ? [choice(word("model"), state.model, named("language"), async (name) => { await chooseModel(name); again("t-model"); }, "t-model"),
        choice(word("reward_model"), state.reward, [none, ...named("reward")], (name) => { state.reward = name; state.scores = null; drawAll(); more(); }, "t-reward"),
        choice(word("reference_model"), state.reference, [none, ...named("language")], (name) => { state.reference = name; state.divergence = null; drawAll(); more(); }, "t-reference")] : null),
      state.models.length && !state.model ? el("p", {}, word("no_writer")) : !state.models.length ? el("p", {}, word("no_models")) : null,
      state.left_out.length ? el("details", {}, el("summary", {}, `${word("not_looked")} (${state.left_out.length})`), el("ul", {}, state.left_out.map((one) => el("li", {}, `${one.name}: ${one.why}`)))) : null);
  }

  function drawInput() {
    if (!state.model) { fill(input); return; }
    const kind = (name) => el("label", {}, el("input", { type: "radio", name: "t-kind", value: name, checked: state.kind === name, onchange: () => { state.kind = name; drawInput(); input.querySelector(`input[value=${name}]`).focus(); } }), " ", word(`as_${name}`));
    const rows = (text) => Math.min(8, Math.max(1, Math.ceil(text.length / 80) + text.split("\n").length - 1));
    fill(input, el("form", { class: "panel", onsubmit: (event) => { event.preventDefault(); look(); } },
      el("div", { class: "row" }, kind("chat"), kind("text")),
      state.kind === "text" ? el("textarea", { "aria-label": word("as_text"), rows: Math.max(3, rows(state.text)), value: state.text, oninput: (event) => { state.text = event.target.value; } })
        : state.messages.map((message, index) => el("div", { class: "message" },
          el("select", { "aria-label": `${word("who")} ${index + 1}`, onchange: (event) => { message.role = event.target.value; } }, [...new Set([...ROLES, message.role])].map((role) => el("option", { value: role, selected: role === message.role }, role))),
          el("textarea", { "aria-label": `${word("message")} ${index + 1}`, rows: rows(message.content), value: message.content, oninput: (event) => { message.content = event.target.value; } }),
          state.messages.length > 1 ? el("button", { type: "button", class: "small", "aria-label": `${word("remove")} ${index + 1}`, title: word("remove"), onclick: () => { state.messages.splice(index, 1); drawInput(); input.querySelector("textarea")?.focus(); } }, "×") : null)),
      el("div", { class: "row" }, el("button", { type: "submit", class: "go" }, word("look")),
        state.kind === "chat" ? el("button", { type: "button", onclick: () => { state.messages.push({ role: state.messages.at(-1)?.role === "user" ? "assistant" : "user", content: "" }); drawInput(); [...input.querySelectorAll("textarea")].at(-1).focus(); } }, word("add_message")) : null,
        el("button", { type: "button", id: "t-example", onclick: async () => { state.example += 1; await example(); drawInput(); document.getElementById("t-example").focus(); look(); } }, word("another_example")))));
  }

  const ask = (what, body) => post(`/api/runs/${encodeURIComponent(state.run)}/through/${what}`, { model: state.model, ...body });

  async function look() {
    const mine = ++ticket;
    clear();
    drawAll();
    said.textContent = word("looking");
    try {
      const found = await ask("pieces", state.kind === "text" ? { text: state.text } : { messages: state.messages });
      if (mine !== ticket || gone) return;
      Object.assign(state, { tokens: found.tokens, from_text: found.tokens, rendered: found.rendered });
      state.at = Math.max(0, span()[0] - 1);
    } catch (error) { if (mine === ticket) fault(error); return; }
    await more();
  }

  // Where the last answer begins and ends: the last stretch that carries loss, and what was added to it.
  function span() {
    const learned = state.tokens.filter((token) => token.loss || token.added).map((token) => token.place);
    if (!learned.some((index) => state.tokens[index].loss)) return [0, state.tokens.length];
    return [learned.findLast((index) => !learned.includes(index - 1)), learned.at(-1) + 1];
  }

  // All that is asked for the tokens that stand there.
  async function more() {
    const mine = ticket, ids = state.tokens.map((token) => token.id);
    if (!ids.length) return;
    drawAll();
    said.textContent = word("looking");
    const [first, end] = span();
    const part = async (name, what, body, wanted = true) => {
      if (!wanted || mine !== ticket || gone) return;
      try { state[name] = await ask(what, { ids, ...body }); delete state.faults[name]; } catch (error) { state[name] = null; state.faults[name] = error.message; }
      if (mine === ticket && !gone) drawAll();
    };
    await part("next", "next", {}, !state.next);
    await part("attention", "attention", { layer: state.layer, head: state.head }, !state.attention);
    await part("scores", "scores", { ids: ids.slice(0, end), reward: state.reward, first }, state.reward && !state.scores);
    await part("divergence", "divergence", { reference: state.reference }, state.reference && !state.divergence);
    if (mine === ticket && !gone) said.textContent = "";
  }

  // Another token in the place of all that comes after the chosen one.
  function goOn(token) {
    ticket += 1;
    const before = state.tokens.slice(0, state.at + 1);
    Object.assign(state, { tokens: [...before, { ...token, place: before.length, loss: null, added: true }], next: null, attention: null, scores: null, divergence: null, at: before.length });
    drawAll();
    more();
    tokens.querySelector("[aria-selected=true]")?.focus();
  }

  function select(index, focus = false) {
    state.at = Math.min(state.tokens.length - 1, Math.max(0, index));
    drawAll();
    if (focus) tokens.querySelector("[aria-selected=true]")?.focus();
  }

  function drawAll() { drawTokens(); drawParts(); drawStrips(); }

  // What stands behind a token in the chosen colour, from -1 to 1; null where nothing is known.
  function weight(index) {
    const first = span()[0];
    const scaled = (values, at) => at < 0 || at >= values.length ? null : values[at] / Math.max(1e-9, ...values.map(Math.abs));
    if (state.colour === "probability") return index && state.next ? state.next.places[index - 1].standing.probability : null;
    if (state.colour === "entropy") return state.next ? scaled(state.next.places.map((one) => one.entropy), index) : null;
    if (state.colour === "attention") return state.attention && index <= state.at ? state.attention.weights[state.at][index] : null;
    if (state.colour === "score") return state.scores ? scaled(state.scores.scores, index - first) : null;
    if (state.colour === "kl") return state.divergence ? scaled(state.divergence.ratios, index - 1) : null;
    return null;
  }

  function drawTokens() {
    if (!state.tokens.length) { fill(tokens); return; }
    const held = tokens.contains(document.activeElement) && document.activeElement.getAttribute("role") === "option", learned = state.tokens.filter((token) => token.loss).length;
    const tip = el("p", { class: "tip", role: "status" }, describe(state.at));
    const list = el("div", { class: "pieces", role: "listbox", "aria-label": word("tokens_of_text"), onkeydown: walk, onpointerleave: () => { tip.textContent = describe(state.at); } }, state.tokens.map((token, index) => {
      const known = weight(index);
      const node = el("span", { role: "option", tabindex: index === state.at ? "0" : "-1", "aria-selected": String(index === state.at), "aria-label": `${index}: ${short(token)}`, title: `${index} · ${token.id} · ${token.bytes}`,
        class: [state.colour === "pieces" ? `k${index % 4}` : known < 0 ? "minus" : "plus", token.special ? "special" : "", token.loss ? "loss" : "", token.added ? "added" : ""].join(" "),
        onclick: () => select(index, true), onpointerenter: () => { tip.textContent = describe(index); } }, seen(token));
      node.style.setProperty("--w", String(Math.abs(known ?? 0)));
      return node;
    }));
    const rendered = tokens.querySelector("details.rendered")?.open;
    fill(tokens, el("h2", {}, word("tokens_title")),
      el("div", { class: "controls" }, el("span", {}, `${state.tokens.length} ${word("tokens")}`, learned ? `, ${word("of_them_learned").replace("#", learned)}` : ""),
        choice(word("colour_by"), state.colour, COLOURS.map((key) => [key, word(`by_${key}`)]), (key) => { state.colour = key; drawTokens(); tokens.querySelector("select").focus(); }, "t-colour"),
        state.tokens !== state.from_text ? el("button", { type: "button", class: "small", onclick: () => { ticket += 1; Object.assign(state, { tokens: state.from_text, next: null, attention: null, scores: null, divergence: null, at: Math.min(state.at, state.from_text.length - 1) }); more(); } }, word("back_to_text")) : null),
      list, tip, el("p", { class: "soft key" }, el("span", { class: "special" }, word("is_special")), el("span", { class: "loss" }, word("is_learned")), el("small", {}, word("walk"))),
      state.rendered ? el("details", { class: "rendered", open: rendered }, el("summary", {}, word("rendered")), el("pre", { tabindex: "0" }, state.rendered)) : null);
    if (held) list.querySelector("[aria-selected=true]").focus({ preventScroll: true });
  }

  // Where a token stands, what it is, and how likely it was.
  function describe(index) {
    const token = state.tokens[index], standing = index && state.next ? state.next.places[index - 1].standing : null;
    return [`${word("place")} ${index}`, `“${short(token)}”`, `id ${token.id}`, `${word("bytes")} ${token.bytes.replace(/(..)(?=.)/g, "$1 ")}`, token.special ? word("is_special") : "", token.loss ? word("is_learned") : "",
      standing ? `${percent(standing.probability)}, ${word("rank")} ${standing.rank}` : ""].filter(Boolean).join(" · ");
  }

  function walk(event) {
    const nodes = [...event.currentTarget.children], now = nodes[state.at];
    const line = (sign) => { // the nearest token of the next line, or of the one before
      const other = nodes.filter((node) => (node.offsetTop - now.offsetTop) * sign > 2), top = other.length ? Math[sign > 0 ? "min" : "max"](...other.map((node) => node.offsetTop)) : null;
      const near = other.filter((node) => Math.abs(node.offsetTop - top) < 3).sort((one, two) => Math.abs(one.offsetLeft - now.offsetLeft) - Math.abs(two.offsetLeft - now.offsetLeft))[0];
      return near ? nodes.indexOf(near) : state.at;
    };
    const to = { ArrowLeft: () => state.at - 1, ArrowRight: () => state.at + 1, Home: () => 0, End: () => nodes.length - 1, ArrowDown: () => line(1), ArrowUp: () => line(-1) }[event.key];
    if (!to) return;
    event.preventDefault();
    select(to(), true);
  }

  function drawParts() {
    if (!state.tokens.length) { fill(parts); return; }
    const held = parts.contains(document.activeElement) ? document.activeElement.id : "";
    fill(parts, el("div", { class: "two" }, el("section", {}, el("h2", {}, word("next_title")), nextTable()), el("section", {}, el("h2", {}, word("attention_title")), attentionPart())));
    if (held) document.getElementById(held)?.focus({ preventScroll: true });
  }

  function nextTable() {
    if (state.faults.next) return el("p", { class: "bad", role: "alert" }, state.faults.next);
    const found = state.next?.places[state.at];
    if (!found) return el("p", { class: "soft" }, "…");
    const after = state.tokens[state.at + 1];
    const row = (one, rank, index) => el("tr", { class: after && one.id === after.id ? "stands" : "" }, el("td", { class: "n" }, rank),
      el("td", {}, index === undefined ? el("code", {}, short(one)) : el("button", { type: "button", id: `t-next-${index}`, class: `small ${one.special ? "special" : ""}`, title: word("go_on_with"), "aria-label": `${word("go_on_with")} ${short(one)}`, onclick: () => goOn(one) }, short(one))),
      el("td", { class: "bar" }, bar(one.probability)), el("td", { class: "n" }, percent(one.probability)));
    const standing = found.standing;
    return [el("p", {}, word("after"), " ", el("code", {}, short(state.tokens[state.at])), ` (${state.at}) · ${word("entropy")} ${nats(found.entropy)}`),
      el("p", {}, standing ? [`${word("stands")} `, el("code", {}, short(after)), `: ${percent(standing.probability)}, ${word("rank")} ${standing.rank}, ${nats(standing.log_probability)}`] : word("nothing_after")),
      el("table", { class: "likely" }, el("thead", {}, el("tr", {}, [word("rank"), word("token"), "", word("probability")].map((text) => el("th", { scope: "col" }, text)))),
        el("tbody", {}, found.likeliest.map((one, index) => row(one, index + 1, index)), standing && standing.rank > found.likeliest.length ? row({ ...after, probability: standing.probability }, standing.rank) : null))];
  }

  function bar(share) {
    const node = el("span", { class: "fill" });
    node.style.setProperty("--w", String(share));
    return node;
  }

  function attentionPart() {
    const model = state.models.find((one) => one.name === state.model), pick = (key, count) => choice(word(key), String(state[key]), Array.from({ length: count }, (_, index) => [String(index), String(index)]), async (value) => {
      state[key] = Number(value);
      state.attention = null;
      await more();
    }, `t-${key}`);
    const choices = el("div", { class: "controls" }, pick("layer", model.layers), pick("head", model.heads));
    if (state.faults.attention) return [choices, el("p", { class: "bad", role: "alert" }, state.faults.attention)];
    if (!state.attention) return [choices, el("p", { class: "soft" }, "…")];
    const row = state.attention.weights[state.at], most = row.map((value, index) => [value, index]).sort((one, two) => two[0] - one[0]).slice(0, 5);
    const tip = el("p", { class: "tip" }, word("map_about"));
    return [choices, heatMap(tip), tip, el("p", {}, el("code", {}, short(state.tokens[state.at])), ` (${state.at}) ${word("looks_at")}`),
      el("table", { class: "likely" }, el("thead", {}, el("tr", {}, [word("place"), word("token"), "", word("share")].map((text) => el("th", { scope: "col" }, text)))),
        el("tbody", {}, most.map(([value, index]) => el("tr", {}, el("td", { class: "n" }, index), el("td", {}, el("code", {}, short(state.tokens[index]))), el("td", { class: "bar" }, bar(value)), el("td", { class: "n" }, percent(value)))),
          state.attention.before ? el("tr", {}, el("td", { class: "n" }, "–"), el("td", {}, word("prefix")), el("td", { class: "bar" }, bar(state.attention.before[state.at])), el("td", { class: "n" }, percent(state.attention.before[state.at]))) : null))];
  }

  // Rows are the tokens that look, columns those that are looked at.
  function heatMap(tip) {
    const rows = state.attention.weights, count = rows.length, room = Math.min(560, Math.max(240, (place.clientWidth || 600) - 40));
    const label = count <= 40 ? 76 : 0, size = Math.max(0.5, Math.min(22, (room - label) / count)), side = label + size * count, ratio = devicePixelRatio || 1;
    const canvas = el("canvas", { width: Math.ceil(side * ratio), height: Math.ceil(side * ratio), role: "img", class: "heat", "aria-label": `${word("attention_title")}: ${word("layer")} ${state.layer}, ${word("head")} ${state.head}` });
    canvas.style.width = canvas.style.height = `${side}px`;
    const style = getComputedStyle(document.documentElement), paint = canvas.getContext("2d"), colour = (name) => style.getPropertyValue(name).trim();
    paint.scale(ratio, ratio);
    paint.fillStyle = colour("--shade");
    paint.fillRect(label, label, size * count, size * count);
    paint.fillStyle = colour("--c0");
    rows.forEach((row, y) => row.forEach((value, x) => { paint.globalAlpha = Math.min(1, value) ** (label ? 0.5 : 0.3); paint.fillRect(label + x * size, label + y * size, Math.max(size - (size > 6 ? 1 : 0), 0.5), Math.max(size - (size > 6 ? 1 : 0), 0.5)); }));
    paint.globalAlpha = 1;
    if (label) {
      paint.fillStyle = colour("--ink");
      paint.font = `${Math.min(12, size * 0.85)}px ${colour("--mono")}`;
      paint.textBaseline = "middle";
      state.tokens.forEach((token, index) => {
        const text = [...short(token)].slice(0, 9).join("");
        paint.textAlign = "right";
        paint.fillText(text, label - 4, label + (index + 0.5) * size, label - 6);
        paint.save();
        paint.translate(label + (index + 0.5) * size, label - 4);
        paint.rotate(-Math.PI / 2);
        paint.textAlign = "left";
        paint.fillText(text, 0, 0, label - 6);
        paint.restore();
      });
    }
    paint.strokeStyle = colour("--c1");
    paint.lineWidth = 1.5;
    paint.strokeRect(label, label + state.at * size, (state.at + 1) * size, Math.max(2, size));
    const where = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top].map((at) => Math.floor((at * side / box.width - label) / size)); };
    canvas.addEventListener("pointermove", (event) => { const [x, y] = where(event); if (rows[y]?.[x] !== undefined && x >= 0) tip.textContent = `${short(state.tokens[y])} (${y}) → ${short(state.tokens[x])} (${x}): ${percent(rows[y][x])}`; });
    canvas.addEventListener("click", (event) => { const [, y] = where(event); if (y >= 0 && y < count) select(y); });
    return canvas;
  }

  function drawStrips() {
    if (!state.tokens.length) { fill(strips); return; }
    const left = [...strips.querySelectorAll(".scroll")].map((node) => node.scrollLeft), [first] = span();
    const sums = state.divergence ? ["ratios", "kl"].map((key) => state.divergence[key].slice(Math.max(0, first - 1)).reduce((sum, one) => sum + one, 0)) : [];
    fill(strips,
      state.reward ? [el("h2", {}, word("scores_title")), el("p", { class: "soft" }, word("scores_about"), " ", el("code", {}, state.reward)),
        state.faults.scores ? el("p", { class: "bad", role: "alert" }, state.faults.scores) : state.scores ? strip(word("scores_title"), [{ name: word("score"), colour: 2, from: first, values: state.scores.scores }], number) : el("p", { class: "soft" }, "…")] : null,
      state.reference ? [el("h2", {}, word("kl_title")), el("p", { class: "soft" }, word("kl_about"), " ", "p ", el("code", {}, state.model), ", r ", el("code", {}, state.reference)),
        state.faults.divergence ? el("p", { class: "bad", role: "alert" }, state.faults.divergence) : state.divergence ? [strip(word("kl_title"), [{ name: "log p − log r", colour: 1, from: 1, values: state.divergence.ratios }, { name: "KL(p ‖ r)", colour: 0, from: 1, values: state.divergence.kl }], nats),
          el("p", {}, `${word("over_answer")}: log p − log r ${nats(sums[0])}, KL ${nats(sums[1])}`)] : el("p", { class: "soft" }, "…")] : null);
    strips.querySelectorAll(".scroll").forEach((node, index) => {
      const mark = Number(node.dataset.at);
      node.scrollLeft = left[index] ?? 0;
      if (mark < node.scrollLeft + 60 || mark > node.scrollLeft + node.clientWidth - 30) node.scrollLeft = Math.max(0, mark - node.clientWidth / 2);
    });
  }

  // Lines over the tokens, which stand below them.
  function strip(title, lines, shown) {
    const LEFT = 54, TOP = 10, HIGH = 130, LABEL = 30, start = Math.max(0, Math.min(...lines.map((line) => line.from)) - 1), stop = Math.max(...lines.map((line) => line.from + line.values.length));
    const part = state.tokens.slice(start, stop), widths = part.map((token) => Math.max(22, [...short(token)].reduce((sum, one) => sum + (one.charCodeAt(0) > 0x2e7f ? 13 : 7.3), 0) + 8)), edges = [LEFT];
    widths.forEach((width) => edges.push(edges.at(-1) + width));
    const all = lines.flatMap((line) => line.values);
    let [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
    if (low === high) high = low + 1;
    const X = (index) => (edges[index - start] + edges[index - start + 1]) / 2, Y = (value) => TOP + (high - value) / (high - low) * HIGH, wide = edges.at(-1) + 6;
    const points = (line) => line.values.map((value, index) => [X(line.from + index), Y(value)]);
    const drawing = el("svg", { width: wide, height: TOP + HIGH + LABEL, viewBox: `0 0 ${wide} ${TOP + HIGH + LABEL}`, role: "img", "aria-label": title },
      ticks(low, high, 3).map((value) => [el("line", { class: value === 0 ? "cursor" : "grid", x1: LEFT, x2: wide, y1: Y(value), y2: Y(value) }), el("text", { class: "tick", x: LEFT - 6, y: Y(value) + 4, "text-anchor": "end" }, number(value))]),
      part.map((token, index) => el("g", { class: "column", onclick: () => select(start + index) }, el("rect", { class: start + index === state.at ? "chosen" : "clear", x: edges[index], y: 0, width: widths[index], height: TOP + HIGH + LABEL }), el("text", { class: "tick label", x: (edges[index] + edges[index + 1]) / 2, y: TOP + HIGH + 20, "text-anchor": "middle" }, short(token)))),
      lines.map((line) => [el("path", { class: "line", colour: line.colour, d: points(line).map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("") }), points(line).map(([x, y]) => el("circle", { class: "dot", colour: line.colour, cx: x, cy: y, r: 3 }))]));
    drawing.style.width = `${wide}px`;
    const value = (line, index) => line.values[index - line.from], known = lines.filter((line) => value(line, state.at) !== undefined);
    const save = () => keep(`${title}.csv`, [[word("place"), "id", word("token"), ...lines.map((line) => line.name)], ...part.map((token, index) => [start + index, token.id, token.text, ...lines.map((line) => value(line, start + index) ?? "")])].map((row) => row.map(cell).join(",")).join("\n") + "\n", "text/csv");
    return el("figure", { class: "chart strip" }, lines.length > 1 ? el("div", { class: "legend" }, lines.map((line) => el("span", { colour: line.colour }, el("i"), line.name))) : null,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title, "data-at": String(state.at >= start && state.at < stop ? X(state.at) : LEFT) }, drawing),
      el("p", { class: "tip" }, known.length ? `${short(state.tokens[state.at])} (${state.at}): ${known.map((line) => `${line.name} ${shown(value(line, state.at))}`).join(" · ")}` : ""),
      el("div", { class: "tools" }, el("button", { type: "button", class: "small", onclick: save }, "CSV")));
  }

  if (wanted !== state.run || (given.get("model") && given.get("model") !== state.model)) await chooseRun(wanted, given.get("model"));
  drawHead(); drawInput(); drawAll();
  if (state.tokens.length) more();

  // The map is painted: it has no colours of its own to change.
  const dark = matchMedia("(prefers-color-scheme: dark)"), repaint = () => drawParts(), watch = new MutationObserver(repaint);
  watch.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  dark.addEventListener("change", repaint);
  return () => { gone = true; watch.disconnect(); dark.removeEventListener("change", repaint); };
}
