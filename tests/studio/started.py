"""A recipe that is quick and learns, and waiting for what a studio does."""

from __future__ import annotations

import time

import httpx

RECIPE = """name: NAME
seed: 0
stages:
  world: {size: {animals: 4, foods: 4, people: 4, places: 4, documents_bytes: 200000, demonstrations: 20,
    preference_prompts: 8, evaluation_prompts: 8}}
  corpus: {documents: [world], settings: {language: {enabled: false}}}
  tokenizer: {vocab_size: 400}
  tokens:
  pretrain:
    model: {hidden_size: 32, intermediate_size: 64, num_layers: 1, num_heads: 2, num_kv_heads: 2, head_dim: 16}
    length: 64
    rows: 2
    epochs: EPOCHS
"""


def recipe(name: str, epochs: float = 1) -> str:
    """The text of a recipe."""
    return RECIPE.replace("NAME", name).replace("EPOCHS", str(epochs))


def wait_for(look, seconds: float = 120, every: float = 0.1):
    """What ``look`` gives as soon as it gives anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(every)
    raise AssertionError("it did not happen in time")


def state_of(client: httpx.Client, name: str) -> str:
    """A run's state; empty where there is none."""
    answer = client.get(f"/api/runs/{name}")
    return answer.json()["state"] if answer.status_code == 200 else ""
