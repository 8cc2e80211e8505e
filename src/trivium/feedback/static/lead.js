// The dashboard asks for its figures every few seconds and draws them.
"use strict";

const board = document.getElementById("dashboard"), live = document.getElementById("live");
const kinds = JSON.parse(board.dataset.kinds), flagWords = JSON.parse(board.dataset.flags);
const NS = "http://www.w3.org/2000/svg";
const shares = new Set(["agreement", "known", "themselves", "first", "longer", "marks", "marks_kind"]);

function element(tag, text, classes = "") {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  node.className = classes;
  return node;
}
function shape(tag, attributes) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
function percent(value) { return value === null || value === undefined ? "–" : `${Math.round(100 * value)} %`; }

function said(value, name) { return shares.has(name) ? percent(value) : value.toFixed(2); }
function range(figure, name) { return figure.low === null ? "" : `${said(figure.low, name)} … ${said(figure.high, name)}`; }

function interval(figure, name) {
  const low = shares.has(name) || name === "w" ? 0 : -0.2, x = (value) => 130 * (Math.max(low, Math.min(1, value)) - low) / (1 - low);
  const svg = shape("svg", { width: 134, height: 16, viewBox: "-2 0 134 16", role: "img", "aria-label": range(figure, name) || said(figure.value, name) });
  svg.append(shape("line", { class: "axis", x1: 0, x2: 130, y1: 8, y2: 8 }));
  if (name === "first" || name === "longer") svg.append(shape("line", { class: "half", x1: x(0.5), x2: x(0.5), y1: 1, y2: 15 }));
  if (figure.low !== null) svg.append(shape("line", { class: "interval", x1: x(figure.low), x2: x(figure.high), y1: 8, y2: 8 }));
  svg.append(shape("circle", { class: "point", cx: x(figure.value), cy: 8, r: 4 }));
  return svg;
}

function link(text, query) {
  const node = element("a", text);
  node.href = `${site}/lead/items?${new URLSearchParams(query)}`;
  return node;
}

function bars(place, entries) {
  const most = Math.max(1, ...entries.map(([, value]) => value)), box = element("div", undefined, "bars");
  for (const [name, value, query] of entries) {
    const label = element("span"), bar = document.createElement("progress");
    bar.max = most;
    bar.value = value;
    bar.ariaLabel = name;
    label.append(query ? link(name, query) : name);
    box.append(label, bar, element("span", value, "hint"));
  }
  place.replaceChildren(entries.length ? box : element("p", board.dataset.none, "hint"));
}

function show(figures) {
  const p = figures.progress;
  document.getElementById("bar").value = p.judgements_wanted ? Math.min(1, p.judgements / p.judgements_wanted) : 0;
  const numbers = { ...p, finished: `${p.finished} / ${p.items}`, judgements: `${p.judgements} / ${p.judgements_wanted}`,
                    chosen: `${p.random} / ${p.uncertain}`, chat: p.thumbs + p.choices, seconds: p.seconds === null ? "–" : Math.round(p.seconds) };
  document.querySelectorAll("[data-number]").forEach((place) => { place.textContent = numbers[place.dataset.number]; });
  document.querySelectorAll("[data-figure]").forEach((row) => {
    const name = row.dataset.figure, figure = figures.agreement[name], known = figure && figure.value !== null;
    row.querySelector(".value").textContent = known ? said(figure.value, name) : "–";
    row.querySelector(".drawn").replaceChildren(known ? interval(figure, name) : element("span", board.dataset.none, "hint"));
    row.querySelector(".n").textContent = known ? [range(figure, name), `n ${figure.n}`].filter(Boolean).join(" · ") : "";
  });
  bars(document.getElementById("ratings"), p.ratings.some(Boolean) ? p.ratings.map((value, at) => [at + 1, value, { rating: at + 1 }]).reverse() : []);
  bars(document.getElementById("flags"), Object.entries(p.flags).map(([flag, value]) => [flagWords[flag] ?? flag, value, { flag }]));
  const marked = document.getElementById("marks");
  if (marked) bars(marked, Object.entries(p.marks).map(([kind, value]) => [kind, value]));
  document.getElementById("people").replaceChildren(...figures.people.map((person) => {
    const row = element("tr"), name = element("th");
    name.append(link(person.name, { person: person.id }));
    name.scope = "row";
    for (const tag of [kinds[person.kind], person.removed ? board.dataset.removed : ""]) if (tag) name.append(" ", element("span", tag, "tag"));
    row.append(name, element("td", person.judged), element("td", person.written), element("td", person.skipped), element("td", person.seconds === null ? "–" : Math.round(person.seconds)));
    for (const figure of ["agreement", "known", "themselves", "first", "longer"]) {
      const cell = element("td", percent(person[figure].value));
      if (person[figure].value !== null) cell.append(" ", element("small", `${percent(person[figure].low)}–${percent(person[figure].high)}`));
      row.append(cell);
    }
    return row;
  }));
}

async function refresh() {
  try {
    const response = await fetch(`${site}/api/lead/figures`, { credentials: "same-origin" });
    if (response.status === 401) return location.assign(`${site}/login`);
    if (!response.ok) throw new Error(response.status);
    show(await response.json());
    live.textContent = live.dataset.on;
    live.classList.remove("off");
  } catch {
    live.textContent = live.dataset.off;
    live.classList.add("off");
  }
  setTimeout(refresh, document.hidden ? 20_000 : 3000);
}
refresh();
