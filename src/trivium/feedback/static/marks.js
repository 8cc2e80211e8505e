// Marks on parts of an answer: a part is selected in the answer's source, by pointer or by keys, and given a kind of error. Places count characters, as the server
// does, while the browser counts UTF-16.
"use strict";

const marking = (() => {
  const panels = [...document.querySelectorAll(".marks")], of = panels.map(() => []);
  let changed = () => {};
  const characters = (text, at) => [...text.slice(0, at)].length, units = (text, at) => [...text].slice(0, at).join("").length;

  function draw(place) {
    const panel = panels[place], area = panel.querySelector("textarea"), list = panel.querySelector("ul");
    panel.querySelector(".chosen").textContent = of[place].length ? `(${of[place].length})` : "";
    list.replaceChildren(...of[place].map((one) => {
      const item = document.createElement("li"), quote = document.createElement("q"), kind = document.createElement("span"), remove = document.createElement("button");
      quote.textContent = area.value.slice(units(area.value, one.start), units(area.value, one.end));
      kind.className = "tag";
      kind.textContent = one.kind;
      remove.type = "button";
      remove.className = "quiet";
      remove.textContent = "×";
      remove.ariaLabel = say("unmark", { text: quote.textContent.slice(0, 40) });
      remove.addEventListener("click", () => { of[place].splice(of[place].indexOf(one), 1); draw(place); changed(); area.focus(); });
      item.append(kind, quote, remove);
      return item;
    }));
    light();
  }

  // In the source, what is marked is coloured where the browser can.
  function light() {
    if (!CSS.highlights) return;
    const ranges = panels.flatMap((panel, place) => {
      const node = document.querySelector(`#response-${place} .text`).firstChild;
      if (node?.nodeType !== Node.TEXT_NODE) return [];
      return of[place].map((one) => {
        const range = new Range();
        range.setStart(node, units(node.data, one.start));
        range.setEnd(node, units(node.data, one.end));
        return range;
      });
    });
    CSS.highlights.set("marked", new Highlight(...ranges));
  }

  panels.forEach((panel, place) => panel.querySelectorAll("button[data-kind]").forEach((button) => button.addEventListener("click", () => {
    const area = panel.querySelector("textarea"), one = { start: characters(area.value, area.selectionStart), end: characters(area.value, area.selectionEnd), kind: button.dataset.kind };
    showFault(one.start < one.end ? null : new Error(say("mark_first")));
    if (one.start >= one.end || of[place].some((other) => other.start === one.start && other.end === one.end && other.kind === one.kind)) return;
    of[place].push(one);
    of[place].sort((a, b) => a.start - b.start || a.end - b.end);
    document.getElementById("said").textContent = say("marked", { kind: one.kind });
    draw(place);
    changed();
  })));
  // A caret is shown and moved by keys where text can be typed; nothing that is typed arrives.
  panels.forEach((panel) => panel.querySelector("textarea").addEventListener("beforeinput", (event) => event.preventDefault()));
  document.addEventListener("drawn", light);
  return {
    all: () => of,
    any: panels.length > 0,
    restore: (given) => panels.forEach((_, place) => { of[place] = [...(given?.[place] ?? [])]; draw(place); }),
    whenChanged: (what) => { changed = what; },
  };
})();
