// What all pages share: saving, the clock of attention, drafts, the skip dialog, light and dark.
"use strict";

const site = document.body.dataset.root; // what stands before every path, where there are several projects
const words = JSON.parse(document.body.dataset.words);

function say(key, gaps = {}) {
  return Object.entries(gaps).reduce((text, [name, value]) => text.replace(`{${name}}`, value), words[key]);
}

async function post(url, body) {
  let response;
  try {
    response = await fetch(site + url, {
      method: "POST", credentials: "same-origin",
      headers: { "content-type": "application/json", "x-csrf-token": document.body.dataset.csrf }, body: JSON.stringify(body),
    });
  } catch {
    throw new Error(say("offline"));
  }
  const result = await response.json().catch(() => ({ error: response.status }));
  if (response.status === 401) location.assign(`${site}/login`);
  if (!response.ok) throw new Error(say("failed", { reason: result.error }));
  return result;
}

// Seconds spent here: while the page is seen, and somebody did something in the last minute.
const attention = (() => {
  let spent = 0, last = performance.now(), active = last;
  const tick = () => {
    const now = performance.now();
    if (!document.hidden && now - active < 60_000) spent += now - last;
    last = now;
  };
  setInterval(tick, 1000);
  for (const kind of ["pointerdown", "pointermove", "keydown", "scroll", "visibilitychange"])
    document.addEventListener(kind, () => { tick(); active = performance.now(); }, { passive: true });
  return { seconds: () => { tick(); return Math.round(spent / 100) / 10; }, recent: () => performance.now() - active < 120_000 };
})();

// While somebody is busy with work, its lease is renewed before it ends.
function keepLease(element) {
  let until = Number(element.dataset.until);
  if (element.dataset.state !== "open" || element.dataset.work === "0") return;
  const length = Math.max(4, until - Date.now() / 1000);
  setInterval(async () => {
    if (attention.recent() && until - Date.now() / 1000 < length / 2) {
      until = Date.now() / 1000 + length;
      await post(`/api/work/${element.dataset.work}/renew`, {}).catch(() => {});
    }
  }, Math.min(60_000, length * 250));
}

// What is not submitted yet is kept in this browser until it is.
function draft(name) {
  const key = `draft-${site}${name}`;
  return {
    read: () => { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } },
    write: (value) => { try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* a full or forbidden store loses a draft, no answer */ } },
    clear: () => { try { localStorage.removeItem(key); } catch { /* as above */ } },
  };
}

function showFault(error) {
  const fault = document.getElementById("fault");
  fault.textContent = error ? error.message : "";
  fault.hidden = !error;
  if (error) fault.scrollIntoView({ block: "nearest" });
}

function skipDialog(work, before) {
  const dialog = document.getElementById("skip-dialog"), form = document.getElementById("skip-form"), button = document.getElementById("skip");
  if (!button) return () => {};
  const open = () => { dialog.showModal(); form.querySelector("input:checked").focus(); };
  button.addEventListener("click", open);
  document.getElementById("skip-cancel").addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const data = new FormData(form);
    try {
      const result = await post(`/api/work/${work}/skip`, { reason: data.get("reason"), note: data.get("note"), seconds: attention.seconds() });
      before();
      location.assign(site + result.next);
    } catch (error) {
      dialog.close();
      showFault(error);
    }
  });
  return open;
}

// Times stand in UTC; readers see them by their own clock.
for (const time of document.querySelectorAll("time[datetime]")) {
  const when = new Date(time.dateTime);
  if (Number.isNaN(when.getTime())) continue;
  time.title = time.textContent;
  time.textContent = when.toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
}

// A time is chosen by the reader's clock, and sent in UTC.
for (const chosen of document.querySelectorAll("input[data-into]")) {
  const sent = chosen.form.elements[chosen.dataset.into], known = sent.value ? new Date(sent.value) : null;
  if (known) chosen.value = new Date(known - 60_000 * known.getTimezoneOffset()).toISOString().slice(0, 16);
  chosen.form.addEventListener("submit", () => { sent.value = chosen.value ? new Date(chosen.value).toISOString() : ""; });
}

// Back to the list as it was filtered.
const list = document.getElementById("to-list");
if (list && document.referrer.startsWith(`${location.origin}${site}/lead/items?`)) list.href = document.referrer;

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
});
document.getElementById("link")?.addEventListener("focus", (event) => event.target.select());
