"""Folders of models that somebody else wrote, with values that no model has: one line that names the file, and no
other fault, no endless work."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from trivium.errors import TriviumError
from trivium.model import LanguageModel
from trivium.model import folder as model_folder
from trivium.model.adapters import AdapterSettings, attach
from trivium.model.adapters import folder as adapter_folder
from trivium.model.config import EncoderConfig, EncoderDecoderConfig, ModelConfig
from trivium.model.encoder import MaskedModel, load_encoder, save_encoder
from trivium.model.encoder_decoder import EncoderDecoder
from trivium.tokenizer.chat import ChatTokenizer

SHAPE = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_layers": 1, "num_heads": 2,
         "num_kv_heads": 2, "head_dim": 8, "max_positions": 32}
IDS = {"eos": 0, "pad": 1, "document": 0}
ODD = ["x", "", None, 1.5, -1, 0, True, [], {}, [1], ["x"], {"x": [1]}, 10**9, 10**30, 1e300, float("nan"), "10" * 3,
       float("-inf")]
"""Values, of which each field has some that are none."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One of each kind of folder, and what opens it."""
    root = tmp_path_factory.mktemp("kinds")
    decoder = LanguageModel(ModelConfig(**SHAPE)).initialise(0)
    for name, model in (("decoder", decoder), ("reward", decoder.rewarding(0))):
        (root / name).mkdir()
        model_folder.save(model, root / name, IDS)
    (root / "encoder").mkdir()
    save_encoder(MaskedModel(EncoderConfig(**SHAPE)).initialise(0), root / "encoder", IDS)
    (root / "translator").mkdir()
    EncoderDecoder(EncoderDecoderConfig(**SHAPE)).initialise(0).save_folder(root / "translator", IDS)
    (root / "adapter").mkdir()
    base = root / "decoder"
    adapter_folder.save(decoder, attach(decoder, AdapterSettings(rank=2), 0), root / "adapter", str(base),
                        adapter_folder.weights_digest(base))
    return {name: (root / name, load_encoder if name == "encoder" else model_folder.load)
            for name in ("decoder", "reward", "encoder", "translator", "adapter")}


def changes(folder):
    """Every file of settings, every field, and what it is to hold; ``...`` stands for nothing at all."""
    for path in sorted(folder.glob("*.json")):
        for name in json.loads(path.read_text()):
            yield from ((path.name, name, value) for value in (..., *ODD))


def opens_or_says(folder, opening, place):
    """Whether a folder opens; it must not fail otherwise than by one line that names the file or the folder."""
    try:
        opening(folder)
    except TriviumError as error:
        assert "\n" not in str(error) and str(place) in str(error).replace(str(folder / "."), str(place)), error
        return False
    return True


def try_changes(folders, kind, some):
    folder, opening = folders[kind]
    opened = 0
    for file, name, value in some:
        before = (folder / file).read_text()
        values = json.loads(before)
        values = {key: one for key, one in values.items() if key != name} | ({} if value is ... else {name: value})
        (folder / file).write_text(json.dumps(values))
        try:
            opened += opens_or_says(folder, opening, folder)
        except TriviumError:
            raise
        except BaseException as error:
            raise AssertionError(f"{kind}/{file}: {name} = {value!r} gives {error!r}") from error
        finally:
            (folder / file).write_text(before)
    assert 0 < opened < len(some)


KINDS = ["decoder", "reward", "encoder", "translator", "adapter"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_values_that_no_model_has(folders, kind):
    try_changes(folders, kind, random.Random(kind).sample(list(changes(folders[kind][0])), 30))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_all_values_that_no_model_has(folders, kind):
    try_changes(folders, kind, list(changes(folders[kind][0])))


@pytest.mark.parametrize(("field", "value", "said"), [
    ("num_hidden_layers", 10**9, "asks for 1,000,000,000 layers, but the weights are"),
    ("num_hidden_layers", 10**30, r"num_hidden_layers is 1000+, where a whole number from 1 was expected"),
    ("hidden_size", "16", "hidden_size is '16', where a whole number from 1 was expected"),
    ("rms_norm_eps", [1], "rms_norm_eps is a list, where a number above 0 was expected"),
    ("rope_parameters", {"rope_type": "default", "rope_theta": "x"}, "rope_parameters.rope_theta is 'x', where a num"),
    ("architectures", 1.5, "architectures is 1.5, where a list of texts was expected"),
    ("eos_token_id", "x", "eos_token_id is 'x', where the number of a token, or a list of them was expected")])
def test_the_field_is_named(folders, tmp_path, field, value, said):
    shutil.copytree(folders["decoder"][0], tmp_path / "it")
    values = json.loads((tmp_path / "it/config.json").read_text())
    (tmp_path / "it/config.json").write_text(json.dumps(values | {field: value}))
    with pytest.raises(TriviumError, match=said):
        model_folder.load(tmp_path / "it")


@pytest.mark.parametrize(("text", "said"), [
    ("[]", "a list, where a JSON object"), ("{", "line 1: not valid JSON"), ("1" * 5000, "a number of more digits"),
    ("[" * 10**5, "too many brackets"), ("\0", "not valid JSON"), ("", "not valid JSON")])
def test_a_config_that_is_none(folders, tmp_path, text, said):
    shutil.copytree(folders["decoder"][0], tmp_path / "it")
    (tmp_path / "it/config.json").write_text(text)
    with pytest.raises(TriviumError, match=said):
        model_folder.load(tmp_path / "it")


@pytest.mark.parametrize("index", [
    {}, {"weight_map": None}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../x.safetensors"}},
    {"weight_map": {"a": None}}, {"weight_map": "x"}, {"weight_map": {"a": "no\0.safetensors"}},
    {"weight_map": {"a": "x" * 500}}, {"weight_map": {"a": "/etc/passwd"}}])
def test_an_index_of_shards_that_is_none(folders, tmp_path, index):
    shutil.copytree(folders["decoder"][0], tmp_path / "it")
    (tmp_path / "it/model.safetensors").rename(tmp_path / "it/shard.safetensors")
    (tmp_path / "it/model.safetensors.index.json").write_text(json.dumps(index))
    assert not opens_or_says(tmp_path / "it", model_folder.load, tmp_path / "it")


@pytest.mark.parametrize("size", [0, 7, 8, 9, 100, -1, -50])
def test_weights_that_are_cut_off(folders, tmp_path, size):
    shutil.copytree(folders["decoder"][0], tmp_path / "it")
    whole = (tmp_path / "it/model.safetensors").read_bytes()
    (tmp_path / "it/model.safetensors").write_bytes(whole[:size])
    assert not opens_or_says(tmp_path / "it", model_folder.load, tmp_path / "it")


def test_weights_of_another_kind(folders, tmp_path):
    shutil.copytree(folders["decoder"][0], tmp_path / "it")
    save_file({"model.norm.weight": torch.zeros(2, 2)}, tmp_path / "it/model.safetensors")
    assert not opens_or_says(tmp_path / "it", model_folder.load, tmp_path / "it")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A folder with a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("tokenizer")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({sign: place for place, sign in enumerate([*alphabet, "<end>"])}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["<end>"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    return folder


@pytest.mark.parametrize(("changed", "said"), [
    ({"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}] * 4}}, "4,096 times as long"),
    ({"normalizer": {"type": "Replace", "pattern": {"Regex": ""}, "content": "a" * 5000}}, "4,096 times as long"),
    ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}},
     "the tokenizer gives up on a text"),
    ({"post_processor": "x"}, "tokenizer.json is not a tokenizer"), ({"model": []}, "it has no model"),
    ({"added_tokens": [{"id": 10**12, "content": "x"}]}, "tokenizer.json is not a tokenizer")])
def test_a_tokenizer_that_would_take_all_memory_or_time(tokenizer, tmp_path, changed, said):
    shutil.copytree(tokenizer, tmp_path / "it")
    found = json.loads((tmp_path / "it/tokenizer.json").read_text())
    (tmp_path / "it/tokenizer.json").write_text(json.dumps(found | changed))
    with pytest.raises(TriviumError, match=said):
        made = ChatTokenizer.load(tmp_path / "it")
        made.started(made.encode("a" * 40 + "b"))
