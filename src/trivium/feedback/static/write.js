// Writing a demonstration.
"use strict";

const form = document.getElementById("write"), prompt_ = document.getElementById("prompt"), answer_ = document.getElementById("answer");
const button = document.getElementById("submit"), kept = draft(`work-${form.dataset.work}`), count_ = document.getElementById("count");

// A draft holds for the answer that it began from: where another has come since, that one is shown.
const base = JSON.stringify([prompt_?.value ?? "", answer_.value]), earlier = kept.read();
if (earlier?.base === base) {
  if (prompt_) prompt_.value = earlier.prompt;
  answer_.value = earlier.answer;
}
function count() { count_.textContent = count_.dataset.text.replace("#", [...answer_.value].length); }
form.addEventListener("input", () => { kept.write({ prompt: prompt_?.value ?? "", answer: answer_.value, base }); count(); });
form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    if (!answer_.value.trim() || (prompt_ && !prompt_.value.trim())) throw new Error(say("empty"));
    button.disabled = true;
    const { next } = await post(`/api/work/${form.dataset.work}/demonstration`, { prompt: prompt_?.value ?? "", answer: answer_.value, seconds: attention.seconds() });
    kept.clear();
    location.assign(site + next);
  } catch (error) {
    button.disabled = false;
    showFault(error);
  }
});
skipDialog(form.dataset.work, kept.clear);
keepLease(form);
count();
(prompt_ ?? answer_).focus();
