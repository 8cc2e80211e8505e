"""The stage of the play: a tiny recipe with the kinds of stages that train, and what its results look like."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trivium.artifacts import MANIFEST, is_record, open_artifact
from trivium.files import TEMPORARY, digest_file

MODEL = "{hidden_size: 32, intermediate_size: 48, num_layers: 2, num_heads: 2, num_kv_heads: 1, head_dim: 16}"
BEGINNING = f"""
name: killed
out: runs
threads: 2
stages:
  world: {{size: {{documents_bytes: 120000, demonstrations: 100, preference_prompts: 40, evaluation_prompts: 30}}}}
  corpus:
    documents: [world, pages]
    evaluation: world
    settings:
      shard_documents: 60
      thresholds: {{min_stop_words: 1, min_sentences: 4, max_top_ngrams: [0.25, 0.24, 0.22]}}
      without: [gopher_quality.word_length, gopher_quality.letter_words]
      contamination: {{run: 8}}
      language: {{enabled: false}}
  tokenizer: {{vocab_size: 500}}
  tokens: {{}}
  pretrain: {{model: {MODEL}, length: 64, rows: 2, steps: 8, precision: PRECISION}}
  sft: {{model: pretrain, length: 128, rows: 2, epochs: 1, precision: PRECISION}}
"""
TRAINING = BEGINNING + f"""
  preferences: {{threads: 1, count: 24, fewest: 3, most: 4, max_new_tokens: 10}}
  reward: {{threads: 1, demonstrations: world, length: 160, rows: 2, precision: PRECISION}}
  ppo: {{threads: 1, iterations: 2, epochs: 2, length: 128, rows: 4, episodes: 8, max_new_tokens: 10,
        precision: PRECISION}}
  dpo: {{threads: 1, length: 160, rows: 2, precision: PRECISION}}
  kto: {{threads: 1, feedback: thumbs.jsonl, length: 160, rows: 2, precision: PRECISION}}
  grpo: {{threads: 1, iterations: 2, episodes: 8, samples: 4, length: 128, rows: 4, max_new_tokens: 10,
         precision: PRECISION}}
  lora: {{kind: sft, threads: 1, model: pretrain, adapter: {{rank: 2}}, length: 128, rows: 2, epochs: 1,
         precision: PRECISION}}
  encode: {{threads: 1, model: {MODEL.replace("num_kv_heads: 1", "num_kv_heads: 2")}, length: 64, rows: 2, steps: 4,
           precision: PRECISION}}
  evaluate: {{models: {{sft: sft, ppo: ppo, dpo: dpo}}, base: pretrain, max_new_tokens: 8}}
  report: {{stages: [world, corpus, tokenizer, tokens, pretrain, sft, preferences, reward, ppo, dpo, evaluate]}}
"""
OTHERS = BEGINNING + f"""
  imports: {{demonstrations: {{mine: rows.csv}}, thumbs: {{liked: thumbs.jsonl}}}}
  labels: {{tables: [labels.csv]}}
  filter: {{rows: [labels.csv], labels: [good]}}
  pairs: {{numbers: 60, heldout: 0.2, heldout_most: 4}}
  encode: {{threads: 1, model: {MODEL.replace("num_kv_heads: 1", "num_kv_heads: 2")}, length: 64, rows: 2, steps: 3,
           precision: PRECISION}}
  classify: {{threads: 1, length: 64, rows: 4, epochs: 1, precision: PRECISION}}
  spans: {{threads: 1, model: {MODEL}, length: 64, rows: 2, steps: 3, precision: PRECISION}}
  translate: {{threads: 1, length: 64, rows: 4, epochs: 1, max_new_tokens: 6, precision: PRECISION}}
  reward: {{threads: 1, preferences: ranked.jsonl, length: 160, rows: 2, precision: PRECISION}}
  ai_feedback: {{threads: 1, model: sft, judge: reward, prompts: world, count: 16, responses: 6, max_new_tokens: 60,
                precision: PRECISION}}
  revise: {{threads: 1, model: sft, judge: sft, prompts: world, count: 16, max_new_tokens: 60, precision: PRECISION}}
  select: {{threads: 1, model: sft, reward: reward, prompts: world, count: 8, max_new_tokens: 60, precision: PRECISION}}
  pictures: {{digits: 24, shapes: 24, heldout: 4, most: 2}}
  vision: {{threads: 1, model: {{size: 28, patch: 7, channels: 1, hidden_size: 16, intermediate_size: 32, num_layers: 1,
           num_heads: 2, num_kv_heads: 2, head_dim: 8}}, rows: 8, epochs: 1, precision: PRECISION}}
  see: {{threads: 1, model: sft, vision: vision, length: 96, rows: 4, epochs: 1, precision: PRECISION}}
  report: {{stages: [world, corpus, tokenizer, tokens, pretrain, sft, imports, classify, translate, see]}}
"""
RECIPES = {"training": TRAINING, "others": OTHERS}


def stages_of(recipe: str) -> tuple[str, ...]:
    """A recipe's stages, in order."""
    return tuple(re.findall(r"^  (\w+):", RECIPES[recipe], re.MULTILINE))



def write(folder: Path, recipe: str, precision: str) -> None:
    """Put a recipe and what it reads into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPES[recipe].replace("PRECISION", precision))
    (folder / "pages").mkdir(exist_ok=True)
    for page in range(6):
        said = " ".join(f"On day {day} the ferry number {page} took {day * page + 3} sheep over the river, and then it "
                        "went back to the town." for day in range(12))
        (folder / f"pages/page{page}.html").write_text(f"<html><body><p>{said}</p></body></html>")
    (folder / "rows.csv").write_text("question,answer\n" + "".join(f"Say {n},{n} it is\n" for n in range(12)))
    (folder / "labels.csv").write_text("text,label\n" + "".join(
        f"page {n} is {kind} enough to be read on day {n},{kind}\n" for n in range(20) for kind in ("good", "bad")))
    (folder / "ranked.jsonl").write_text("".join(json.dumps({
        "id": f"{n}", "prompt": [{"role": "user", "content": f"count to {n}"}], "responses": ["one two", "no", "two"],
        "ranking": [[0], [2], [1]], "split": ["train", "heldout"][n % 4 == 0]}) + "\n" for n in range(16)))
    with open(folder / "thumbs.jsonl", "w") as file:
        for number in range(12):
            print(json.dumps({"prompt": [{"role": "user", "content": f"count to {number}"}],
                              "completion": "one two " * (number % 3 + 1), "label": number % 2 == 0}), file=file)


TIMES = ("seconds", "created", "peak_memory_mb", "shared_memory_mb", "records", "versions")
"""What a manifest says of the making, which differs from run to run."""


def picture(run: Path) -> dict[str, Any]:
    """Every file of a run's folder with what it holds, as far as two runs of one recipe must agree on it: digests of
    contents, manifests and logs without their times, and the names of other records."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_dir():
            assert not TEMPORARY.fullmatch(path.name), f"{path} was left behind"
            continue
        if path.name == MANIFEST:
            made = json.loads(path.read_bytes())
            found[name] = {key: value for key, value in made.items() if key not in TIMES} | {
                "records": sorted(made["records"]), "summary": timeless(made["summary"])}
        elif path.name == "status.json":
            told = json.loads(path.read_bytes())
            found[name] = {"state": told["state"], **{stage: one["state"] for stage, one in told["stages"].items()}}
        elif path.name == "log.jsonl":
            found[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        else:
            found[name] = "a record" if is_record(name) else digest_file(path)
    return found


def timeless(value: Any) -> Any:
    """A value without the numbers that a clock had a say in."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items()
                if not re.search(r"second|time|memory|_per_|speed|rate_of", key)}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def differences(run: Path, wanted: dict[str, Any]) -> list[str]:
    """In which files a run differs from the picture of another; each artifact is checked against its manifest too."""
    for manifest in run.glob(f"*/{MANIFEST}"):
        open_artifact(manifest.parent, verify=True)
    found = picture(run)
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
