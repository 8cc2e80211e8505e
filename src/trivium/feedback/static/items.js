// The table of items: what is chosen is shown at once, and addresses hold only what was asked for.
"use strict";

const filters = document.getElementById("filters");
filters.addEventListener("submit", () => {
  for (const field of filters.elements) if (field.name && (field.value === "" || (field.name === "sort" && field.value === "newest"))) field.disabled = true;
});
addEventListener("pageshow", () => { for (const field of filters.elements) field.disabled = false; });
