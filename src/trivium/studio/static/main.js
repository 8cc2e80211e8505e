// The studio: which view a page's address shows, and what stands around all of them.
import { el, fill, get, say } from "./dom.js";
import { language, light, shown, speak, spell, word } from "./words.js";
import { compareView } from "./compare.js";
import { runView } from "./run.js";
import { runsView } from "./runs.js";
import { startView } from "./start.js";
import { throughView } from "./through.js";

let leave = () => {};

const VIEWS = [
  [/^\/$/, () => runsView], [/^\/run\/([^/]+)$/, (name) => (place) => runView(place, decodeURIComponent(name))],
  [/^\/start$/, () => startView], [/^\/compare$/, () => compareView], [/^\/through$/, () => throughView],
];

async function show() {
  leave();
  leave = () => {};
  spell(document);
  const path = location.pathname;
  fill(document.getElementById("nav"), [["/", "runs"], ["/start", "start"], ["/compare", "compare"], ["/through", "through"]].map(([address, key]) =>
    el("a", { href: address, "aria-current": address === path ? "page" : null }, word(key))));
  fill(document.getElementById("switches"),
    el("button", { type: "button", class: "small", lang: language() === "zh" ? "en" : "zh-Hans", onclick: () => { speak(language() === "zh" ? "en" : "zh"); show(); } }, word("language")),
    el("button", { type: "button", class: "small", "aria-label": word("light"), title: word("light"), onclick: () => light(shown() === "dark" ? "light" : "dark") }, "◐"));
  const place = document.getElementById("main");
  fill(place);
  for (const [pattern, view] of VIEWS) {
    const found = path.match(pattern);
    if (!found) continue;
    try {
      leave = (await view(...found.slice(1))(place)) || (() => {});
    } catch (error) {
      fill(place, el("h1", {}, word("not_there")), el("p", { class: "bad", role: "alert" }, error.message));
    }
    return;
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='/']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button || link.target || link.hasAttribute("download")) return;
  event.preventDefault();
  history.pushState(null, "", link.getAttribute("href"));
  show().then(() => { scrollTo(0, 0); document.getElementById("main").focus({ preventScroll: true }); });
});
addEventListener("popstate", show);
get("/api/studio").then((about) => {
  document.getElementById("title").textContent = about.title;
  document.title = `${about.title} studio`;
}).catch((error) => say(error.message, true));
show();
