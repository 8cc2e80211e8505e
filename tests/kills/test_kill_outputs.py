"""What is written beside a run, by `merge`, `export` and GGUF files that are unpacked: killed while it is half written,
and made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from trivium.artifacts import open_artifact
from trivium.files import TEMPORARY, digest_file
from trivium.model import LanguageModel, ModelConfig
from trivium.model.adapters import AdapterSettings, attach
from trivium.model.adapters import folder as adapter_folder
from trivium.stages.models import save_model
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base of 30 MB and a LoRA adapter on it."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = ChatTokenizer(tokenizer_training.train(["the ferry took the sheep over the river"] * 9, 300))
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=256, intermediate_size=1024, num_layers=8,
                         num_heads=4, num_kv_heads=4, head_dim=64, max_positions=128)
    model = LanguageModel(config).initialise(0)
    save_model(model, tokenizer, folder / "base")
    attached = attach(model, AdapterSettings("lora", 2), 1)
    for parameter in (part for module in attached.modules.values() for part in module.parameters()):
        torch.nn.init.normal_(parameter, 0, 0.1)
    adapter_folder.save(model, attached, folder / "adapter", "../base", adapter_folder.weights_digest(folder / "base"))
    return folder


def leftovers(folder):
    return [path for path in folder.rglob("*") if TEMPORARY.fullmatch(path.name) or path.name.startswith(".tmp")]


def killed(words, folder, sort, environment=None):
    """Start a command and kill it as soon as something lies half written in a folder; whether it was."""
    process = subprocess.Popen([sys.executable, "-m", "trivium.cli", *map(str, words)], env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and not leftovers(folder):
        time.sleep(0.002)
    process.send_signal(sort)
    said = process.communicate()[0]
    assert "Traceback" not in said and "fault of Trivium" not in said
    return process.returncode != 0


def again(words, environment=None):
    done = subprocess.run([sys.executable, "-m", "trivium.cli", *map(str, words)], env=environment, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("sort", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_merge_is_made_again_in_the_same_place(models, tmp_path, sort):
    again(["merge", models / "adapter", tmp_path / "undisturbed/whole"])
    (tmp_path / "here").mkdir()
    words = ["merge", models / "adapter", tmp_path / "here/whole"]
    assert killed(words, tmp_path / "here", sort) and not (tmp_path / "here/whole").exists()
    again(words)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["whole"]
    found, wanted = (open_artifact(tmp_path / place / "whole", verify=True) for place in ("here", "undisturbed"))
    assert found.digest == wanted.digest


@pytest.mark.long
@pytest.mark.parametrize("model", ["base", "adapter"])
@pytest.mark.parametrize("sort", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_export_and_a_killed_unpacking_leave_nothing(models, tmp_path, model, sort):
    pytest.importorskip("gguf")
    again(["export", models / model, "--gguf", tmp_path / "undisturbed.gguf", "--type", "f32"])
    (tmp_path / "here").mkdir()
    words = ["export", models / model, "--gguf", tmp_path / "here/model.gguf", "--type", "f32"]
    assert killed(words, tmp_path / "here", sort) and not (tmp_path / "here/model.gguf").exists()
    again(words)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["model.gguf"]
    if model == "base":  # another's name of the model stands in the file
        assert digest_file(tmp_path / "here/model.gguf") == digest_file(tmp_path / "undisturbed.gguf")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    chat = ["chat", tmp_path / "here/model.gguf", "--prompt", "the ferry", "--max-new-tokens", "2"]
    (tmp_path / "cache").mkdir()
    assert killed(chat, tmp_path / "cache", sort, environment)
    again(chat, environment)
    assert not leftovers(tmp_path / "cache") and len(list((tmp_path / "cache/trivium/gguf").iterdir())) == 1
