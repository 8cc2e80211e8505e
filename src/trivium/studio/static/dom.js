// Small things that every view needs: elements, requests, numbers and times for people.
import { language, word } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "g", "path", "line", "circle", "text", "rect", "title", "clipPath", "defs"]);

// An element. Properties that begin with "on" are listeners; null and false leave a property out.
export function el(tag, properties = {}, ...children) {
  const node = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "colour") node.style.setProperty("--s", `var(--c${value})`);
    else if (name === "value" && "value" in node) node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// Put children in the place of what a node holds.
export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

async function asked(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error(word("unreachable"));
  }
  if (answer.status === 401 && address !== "/login") location.assign("/login");
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `${answer.status}`);
  return body;
}

export const get = (address, query = {}) => {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== "" && one !== null && one !== undefined) given.append(name, one);
  }
  return asked(given.size ? `${address}?${given}` : address);
};
export const post = (address, body = {}) =>
  asked(address, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
export const upload = (file) =>
  asked(`/api/files?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });

// What is said once, seen and heard.
let silence;
export function say(text, bad = false) {
  const place = document.getElementById("said");
  place.className = bad ? "bad" : "";
  place.textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => { place.textContent = ""; }, bad ? 12000 : 5000);
}

export const number = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
};
// A figure with its interval; shares as per cent.
export const figure = (one) => {
  if (one.low === null || one.low === undefined) return number(one.value);
  const share = one.low >= 0 && one.high <= 1;
  const shown = (value) => share ? (value * 100).toFixed(1) : number(value);
  return `${shown(one.value)}${share ? " %" : ""} [${shown(one.low)}, ${shown(one.high)}]`;
};
export const span = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  if (h) return `${h}:${two(m)} ${word("hours")}`;
  return m ? `${m}:${two(s)} ${word("minutes")}` : `${s} ${word("seconds_short")}`;
};
export const moment = (seconds) => {
  const date = new Date(seconds * 1000);
  const text = date.toLocaleString(language() === "zh" ? "zh-CN" : "en-GB", { dateStyle: "medium", timeStyle: "short" });
  return el("time", { datetime: date.toISOString() }, text);
};
export const pair = (words) => words[language() === "zh" ? 1 : 0];

// Let the browser keep a text or a picture as a file.
export function keep(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
// A cell that no spreadsheet takes for a formula.
export const cell = (value) => {
  const text = String(value ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text)) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
