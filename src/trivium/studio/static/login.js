// The door: the key goes to the studio once, which answers with a cookie that scripts cannot read.
import { post } from "./dom.js";
import { spell, word } from "./words.js";

spell(document);
document.getElementById("door").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await post("/login", { key: document.getElementById("key").value });
    location.assign("/");
  } catch (error) {
    document.getElementById("wrong").textContent = error.message || word("unreachable");
  }
});
document.getElementById("key").focus();
