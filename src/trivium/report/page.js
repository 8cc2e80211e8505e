"use strict";
// Three switches: language, light, and which task's answers are shown. Without scripts the page is English, in the system's light.
(() => {
  const root = document.documentElement;
  const kept = (key, value) => { try { if (value === undefined) return localStorage.getItem("trivium-" + key); localStorage.setItem("trivium-" + key, value); } catch { return null; } };
  const language = (code) => {
    root.dataset.language = code;
    root.lang = code === "zh" ? "zh-Hans" : "en";
    for (const button of document.querySelectorAll("[data-set-language]")) button.setAttribute("aria-pressed", String(button.dataset.setLanguage === code));
  };
  const light = (name) => {
    if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
    for (const button of document.querySelectorAll("[data-set-theme]")) button.setAttribute("aria-pressed", String(button.dataset.setTheme === name));
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.setLanguage) { language(button.dataset.setLanguage); kept("language", button.dataset.setLanguage); }
    if (button.dataset.setTheme) { light(button.dataset.setTheme); kept("theme", button.dataset.setTheme); }
    if (button.dataset.task !== undefined) {
      for (const other of document.querySelectorAll("[data-task]")) other.setAttribute("aria-pressed", String(other === button));
      for (const part of document.querySelectorAll("[data-of-task]")) part.hidden = part.dataset.ofTask !== button.dataset.task;
    }
    if (button.dataset.copy) {
      const text = document.getElementById(button.dataset.copy).textContent;
      (navigator.clipboard ? navigator.clipboard.writeText(text) : Promise.reject()).then(() => { button.dataset.done = "yes"; }, () => {
        const range = document.createRange();
        range.selectNodeContents(document.getElementById(button.dataset.copy));
        getSelection().removeAllRanges();
        getSelection().addRange(range);
      });
    }
  });
  language(kept("language") || ((navigator.language || "").startsWith("zh") ? "zh" : "en"));
  light(kept("theme") || "auto");
  for (const part of document.querySelectorAll("[data-scripted]")) part.hidden = false;
  const first = document.querySelector("[data-task]");
  if (first) first.click();
})();
