// Texts of prompts and answers, rendered or as their source, by a switch that this browser remembers.
import { draw } from "./markdown.js";

const texts = [...document.querySelectorAll("[data-markdown]")], sources = new Map(texts.map((node) => [node, node.textContent]));
const turn = document.getElementById("rendered");
let rendered = document.body.dataset.rendered === "true";
try { rendered = JSON.parse(localStorage.getItem("rendered")) ?? rendered; } catch { /* a forbidden store remembers nothing */ }

function show() {
  for (const node of texts) {
    node.classList.toggle("rendered", rendered);
    if (rendered) draw(node, sources.get(node)); else { node.replaceChildren(sources.get(node)); }
  }
  turn?.setAttribute("aria-pressed", rendered);
  document.dispatchEvent(new Event("drawn"));
}

function change() {
  rendered = !rendered;
  try { localStorage.setItem("rendered", rendered); } catch { /* as above */ }
  show();
}

turn?.addEventListener("click", change);
document.addEventListener("keydown", (event) => {
  const keys = document.getElementById("single-keys");
  if (event.key !== "," || event.ctrlKey || event.metaKey || event.altKey || (keys && !keys.checked)) return;
  if (turn && !document.querySelector("dialog[open]") && !event.target.matches("textarea, select, input:not([type=radio]):not([type=checkbox])")) change();
});
show();
