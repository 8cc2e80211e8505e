// Ranking by pointer, by buttons and by keys alone. The state is `groups` (places on the page, best first, ties in one group)
// and what is not ranked yet; everything on the screen is drawn from it.
"use strict";

const root = document.getElementById("compare");
const count = Number(root.dataset.count), settling = root.dataset.mode === "settle";
const letter = (place) => String.fromCharCode(65 + place);
const cards = [...document.querySelectorAll(".response")], shorts = cards.map((card) => card.querySelector(".text").textContent.slice(0, 80));
const ranks = document.getElementById("ranks"), trayChips = document.getElementById("tray-chips"), trayTitle = document.getElementById("tray-title");
const allBad = document.getElementById("all-bad"), note = document.getElementById("note");
const kept = draft(settling ? `settle-${root.dataset.item}` : `work-${root.dataset.work}`);

let groups = [], current = -1;
// A draft holds for the answer that it began from: where another has come since, that one is shown.
const begun = kept.read();
const earlier = begun?.base === root.dataset.answer ? begun : JSON.parse(root.dataset.answer);
if (earlier) restore(earlier);
function keep() { kept.write({ ...answer(), base: root.dataset.answer }); }

function restore(answer) {
  marking.restore(answer.marks);
  groups = (answer.ranking || []).map((group) => group.filter((place) => place < count)).filter((group) => group.length);
  (answer.ratings || []).forEach((value, place) => { const one = radio(place, value); if (one) one.checked = true; });
  (answer.flags || []).forEach((flags, place) => flags.forEach((flag) => {
    const box = document.querySelector(`input[name="flag-${place}"][value="${CSS.escape(flag)}"]`);
    if (box) box.checked = true;
  }));
  if (allBad) allBad.checked = Boolean(answer.all_bad);
  note.value = answer.note || "";
}

function radio(place, value) { return document.querySelector(`input[name="rating-${place}"][value="${Number(value)}"]`); }
function rating(place) { return Number(document.querySelector(`input[name="rating-${place}"]:checked`)?.value) || null; }
function flagsOf(place) { return [...document.querySelectorAll(`input[name="flag-${place}"]:checked`)].map((box) => box.value); }
function placeOf(place) { return groups.findIndex((group) => group.includes(place)); }
function unranked() { return cards.map((_, place) => place).filter((place) => placeOf(place) < 0); }
function answer() {
  return { ranking: groups, ratings: cards.map((_, place) => rating(place)), flags: cards.map((_, place) => flagsOf(place)),
           all_bad: Boolean(allBad?.checked), note: note.value, ...(marking.any ? { marks: marking.all() } : {}) };
}

// changing the state

function without(place) { return groups.map((group) => group.filter((one) => one !== place)); }

/** Put `place` into group `at` (a tie), or, with `between`, into a new group before group `at`; -1 takes it out. Numbers are those before the move. */
function put(place, at, between) {
  const rest = without(place);
  if (at >= 0 && !between) rest[at].push(place);
  if (at >= 0 && between) rest.splice(at, 0, [place]);
  groups = rest.filter((group) => group.length).map((group) => group.sort((a, b) => a - b));
  changed(place);
}

/** One step up or down: out of a tie, or into one with the neighbour; so every order can be reached. */
function step(place, down) {
  const at = placeOf(place);
  if (at < 0) return put(place, down ? groups.length : groups.length && 0, true);
  if (groups[at].length > 1) return put(place, down ? at + 1 : at, true);
  const to = down ? at + 1 : at - 1;
  if (to >= 0 && to < groups.length) put(place, to, false);
}

function byRatings() {
  const values = [...new Set(cards.map((_, place) => rating(place)).filter(Boolean))].sort((a, b) => b - a);
  groups = values.map((value) => cards.map((_, place) => place).filter((place) => rating(place) === value));
  changed();
}

function changed(place) {
  draw();
  keep();
  showFault(null);
  if (place === undefined) return;
  const at = placeOf(place), gaps = { letter: letter(place), rank: at + 1, ranks: groups.length };
  document.getElementById("said").textContent = say(at < 0 ? "unplaced" : groups[at].length > 1 ? "tied" : "moved", gaps);
}

function choose(place, scroll = true) {
  current = place;
  draw();
  if (place < 0) return;
  cards[place].focus({ preventScroll: true });
  if (scroll) cards[place].scrollIntoView({ block: "nearest", behavior: "auto" });
}

// drawing

function element(tag, classes, text) {
  const node = document.createElement(tag);
  node.className = classes;
  if (text !== undefined) node.textContent = text;
  return node;
}

function chip(place) {
  const node = element("div", "chip" + (place === current ? " current" : ""));
  node.dataset.place = place;
  node.append(element("span", "letter small", letter(place)), element("span", "short", shorts[place]));
  if (rating(place)) node.append(element("span", "rated", rating(place)));
  for (const down of [false, true]) {
    const button = element("button", "", down ? "↓" : "↑");
    button.type = "button";
    button.ariaLabel = say(down ? "down" : "up", { letter: letter(place) });
    button.addEventListener("click", () => { current = place; step(place, down); });
    node.append(button);
  }
  return node;
}

function draw() {
  cards.forEach((card, place) => {
    card.classList.toggle("current", place === current);
    const flags = flagsOf(place).length;
    card.querySelector(".flags .chosen").textContent = flags ? `(${flags})` : "";
  });
  const parts = [];
  groups.forEach((group, at) => {
    const row = element("li", "rank"), chips = element("div", "chips");
    row.dataset.at = at;
    chips.append(...group.map(chip));
    row.append(element("span", "place", at + 1), chips);
    const gap = element("li", "gap");
    gap.role = "presentation";
    parts.push(gap, row);
  });
  if (parts.length) { const gap = element("li", "gap"); gap.role = "presentation"; parts.push(gap); }
  ranks.replaceChildren(...parts);
  const rest = unranked();
  trayChips.replaceChildren(...rest.map(chip));
  trayTitle.textContent = rest.length ? trayTitle.dataset.some : trayTitle.dataset.none;
}

// the pointer: mouse, pen and touch alike

let drag = null;

function target(y, x) {
  const rows = [...ranks.querySelectorAll(".rank")];
  const tray = document.getElementById("tray").getBoundingClientRect(), box = ranks.getBoundingClientRect();
  if (x < box.left - 60 || x > box.right + 60) return null;
  if (y > tray.top && y < tray.bottom + 40) return { at: -1 };
  if (!rows.length) return { at: 0, between: true };
  for (const [at, row] of rows.entries()) {
    const { top, bottom } = row.getBoundingClientRect(), edge = Math.min(12, (bottom - top) * 0.3);
    if (y < top + edge) return { at, between: true };
    if (y <= bottom - edge) return { at, between: false };
  }
  return { at: rows.length, between: true };
}

function mark(spot) {
  ranks.querySelectorAll(".gap").forEach((gap, at) => gap.classList.toggle("here", Boolean(spot?.between) && spot.at === at));
  ranks.querySelectorAll(".rank").forEach((row, at) => row.classList.toggle("joining", Boolean(spot) && !spot.between && spot.at === at));
}

document.querySelector(".ranking").addEventListener("pointerdown", (event) => {
  const taken = event.target.closest(".chip");
  if (!taken || event.target.closest("button") || event.button) return;
  event.preventDefault();
  drag = { place: Number(taken.dataset.place), chip: taken, x: event.clientX, y: event.clientY, id: event.pointerId, box: taken.getBoundingClientRect(), flying: null };
});
document.addEventListener("pointermove", (event) => {
  if (!drag || event.pointerId !== drag.id) return;
  const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
  if (!drag.flying) {
    if (Math.hypot(dx, dy) < 5) return;
    drag.flying = drag.chip.cloneNode(true);
    drag.flying.classList.add("flying");
    drag.flying.style.width = `${drag.box.width}px`;
    document.body.append(drag.flying);
    drag.chip.classList.add("lifted");
  }
  drag.flying.style.transform = `translate(${drag.box.left + dx}px, ${drag.box.top + dy}px)`;
  if (event.clientY < 50) scrollBy(0, -12);
  if (event.clientY > innerHeight - 50) scrollBy(0, 12);
  mark(target(event.clientY, event.clientX));
});
function release(event, kept_) {
  if (!drag || event.pointerId !== drag.id) return;
  const { place, flying } = drag;
  drag.chip.classList.remove("lifted");
  flying?.remove();
  drag = null;
  mark(null);
  if (!kept_) return;
  if (!flying) { current = place; if (placeOf(place) < 0) put(place, groups.length, true); else choose(place); return; }
  const spot = target(event.clientY, event.clientX);
  current = place;
  if (spot) put(place, spot.at, spot.between); else draw();
}
document.addEventListener("pointerup", (event) => release(event, true));
document.addEventListener("pointercancel", (event) => release(event, false));

// keys

const single = document.getElementById("single-keys");
try { single.checked = localStorage.getItem("single-keys") !== "off"; } catch { /* a forbidden store remembers nothing */ }
single.addEventListener("change", () => { try { localStorage.setItem("single-keys", single.checked ? "on" : "off"); } catch { /* as above */ } });
const openSkip = settling ? () => {} : skipDialog(root.dataset.work, kept.clear);
document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (document.querySelector("dialog[open]") || at.matches("textarea, select, input:not([type=radio]):not([type=checkbox])")) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !document.querySelector("dialog[open]")) submit();
    return;
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); return submit(); }
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key.length === 1 && event.key !== " " && !single.checked) return;
  if (event.key.startsWith("Arrow") && !event.shiftKey && at.matches("input[type=radio]")) return; // the next rating, as in every group
  const place = /^[a-z]$/i.test(event.key) ? event.key.toLowerCase().charCodeAt(0) - 97 : -1;
  if (place >= 0 && place < count) { event.preventDefault(); return choose(place); }
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const down = event.key === "ArrowDown";
    event.preventDefault();
    if (event.shiftKey) { if (current >= 0) step(current, down); return; }
    return choose(current < 0 ? (down ? 0 : count - 1) : Math.min(count - 1, Math.max(0, current + (down ? 1 : -1))));
  }
  if (/^[1-7]$/.test(event.key) && current >= 0) {
    event.preventDefault();
    radio(current, event.key).checked = true;
    return changed();
  }
  if (event.key === "=") { event.preventDefault(); return byRatings(); }
  if (event.key === "0" && allBad) { allBad.checked = !allBad.checked; return changed(); }
  if (event.key === "/") { event.preventDefault(); return openSkip(); }
  if (event.key === "." && current >= 0) {
    const details = cards[current].querySelector("details");
    details.open = true;
    return details.querySelector("input").focus();
  }
  if (event.key === ";" && current >= 0 && marking.any) {
    event.preventDefault();
    const details = cards[current].querySelector(".marks");
    details.open = true;
    return details.querySelector("textarea").focus();
  }
  if (event.key === "Enter" && !at.closest("button, a, summary")) { event.preventDefault(); submit(); }
});
cards.forEach((card, place) => card.addEventListener("pointerdown", () => { if (current !== place) { current = place; draw(); } }));
cards.forEach((card, place) => card.addEventListener("focusin", () => { if (current !== place) { current = place; draw(); } }));
root.addEventListener("change", () => changed());
note.addEventListener("input", keep);
marking.whenChanged(keep);
document.getElementById("by-ratings").addEventListener("click", byRatings);
document.getElementById("submit").addEventListener("click", submit);

let sending = false;
async function submit() {
  if (sending) return;
  const judgement = answer(), letters = (places) => places.map(letter).join(", ");
  const missing = cards.map((_, place) => place).filter((place) => !rating(place));
  try {
    if (!judgement.all_bad) {
      if (unranked().length) throw new Error(say("place_all", { letters: letters(unranked()) }));
      if (missing.length && !settling) throw new Error(say("rate_all", { letters: letters(missing) }));
      if (groups.length < 2) throw new Error(say("all_tied"));
    } else if (unranked().length) judgement.ranking = null;
    sending = document.getElementById("submit").disabled = true;
    const url = settling ? "/api/lead/settle" : `/api/work/${root.dataset.work}/judgement`;
    const { next } = await post(url, { ...judgement, ...(settling ? { item: root.dataset.item } : {}), seconds: attention.seconds() });
    kept.clear();
    location.assign(site + next);
  } catch (error) {
    sending = document.getElementById("submit").disabled = false;
    showFault(error);
  }
}

keepLease(root);
draw();
