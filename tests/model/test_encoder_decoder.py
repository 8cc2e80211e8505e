"""Encoder-decoders: their folders in ``transformers``, packed pairs, and cached writing."""

from __future__ import annotations

import json

import pytest
import torch

from trivium.errors import TriviumError
from trivium.generation.sampling import Sampling
from trivium.generation.translate import translate
from trivium.model import folder as model_folder
from trivium.model.config import EncoderDecoderConfig
from trivium.model.encoder_decoder import EncoderDecoder, load_encoder_decoder

CONFIG = EncoderDecoderConfig(vocab_size=90, hidden_size=48, intermediate_size=80, num_layers=2, num_heads=4,
                              num_kv_heads=2, head_dim=16, max_positions=64)
IDS = {"pad": 1, "eos": 0}


def written(seed=0):
    model = EncoderDecoder(CONFIG).initialise(seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    return model


def tokens(rows, length, seed=0):
    return torch.randint(2, 90, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_transformers_loads_the_folder_and_gives_the_same_logits_and_words(tmp_path):
    from transformers import AutoModelForSeq2SeqLM
    model = written()
    model.save_folder(tmp_path, IDS)
    other = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    sources, targets = tokens(2, 13), tokens(2, 7, 1)
    mask = torch.ones_like(sources)
    mask[1, 9:] = 0
    with torch.no_grad():
        theirs = other(input_ids=sources, attention_mask=mask, decoder_input_ids=targets,
                       decoder_attention_mask=torch.ones_like(targets)).logits
        assert torch.allclose(model(sources, targets, mask - 1), theirs, atol=1e-4)
        assert torch.equal(load_encoder_decoder(tmp_path)(sources, targets), model(sources, targets))
    said = other.generate(input_ids=sources, attention_mask=mask, max_new_tokens=9, do_sample=False).tolist()
    ours = translate(model, [sources[0].tolist(), sources[1, :9].tolist()], Sampling(temperature=0, max_new_tokens=9),
                     0)
    assert [[t for t in row if t > 1] for row in said] == ours and all(ours)


def test_cached_writing_is_what_the_whole_forward_pass_says():
    model, sources = written(), [tokens(1, n, n)[0].tolist() for n in (3, 11, 7)]
    for source, target in zip(sources,
                              translate(model, sources, Sampling(temperature=0, max_new_tokens=6), end=0, rows=2),
                              strict=True):
        said = [0]
        for token in target:
            with torch.no_grad():
                assert token == int(model(torch.tensor([source]), torch.tensor([said]))[0, -1].argmax())
            said.append(token)
    drawn = translate(model, sources, Sampling(max_new_tokens=6, seed=3), 0)
    assert drawn == translate(model, sources, Sampling(max_new_tokens=6, seed=3), 0, rows=1) != translate(
        model, sources, Sampling(max_new_tokens=6, seed=4), 0)


@pytest.mark.parametrize(("source", "message"), [([], "source 1 has 0 tokens"), ([5] * 65, "65 tokens"),
                                                 ([90], "outside the model's 90")])
def test_sources_that_cannot_be_read_are_refused(source, message):
    with pytest.raises(TriviumError, match=message):
        translate(written(), [source], Sampling(max_new_tokens=2), 0)


@pytest.mark.parametrize(("change", "message"), [
    ({"model_type": "t5"}, "is 't5gemma'"),
    ({"half": {"hidden_activation": "gelu_pytorch_tanh"}}, "only 'silu' is supported"),
    ({"half": {"attn_logit_softcapping": 50.0}}, "only None is supported"),
    ({"half": {"layer_types": ["sliding_attention"] * 2}}, "the whole text"),
    ({"half": {"intermediate_size": 96}}, "do not fit config.json"),
    ({"decoder": {"num_hidden_layers": 3}}, "differ in size"),
])
def test_a_folder_that_is_not_ours_says_why(tmp_path, change, message):
    written().save_folder(tmp_path, IDS)
    values = json.loads((tmp_path / "config.json").read_text())
    for half in ("encoder", "decoder"):
        values[half] |= change.get("half", {}) | change.get(half, {})
    values["model_type"] = change.get("model_type", "t5gemma")
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(TriviumError, match=message):
        load_encoder_decoder(tmp_path)


def test_an_adapter_of_an_encoder_decoder_is_one_of_peft(tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM

    from trivium.model.adapters import AdapterSettings, attach
    from trivium.model.adapters import folder as adapter_folder
    model = written()
    (tmp_path / "base").mkdir()
    (tmp_path / "adapter").mkdir()
    model.save_folder(tmp_path / "base", IDS)
    attached = attach(model, AdapterSettings(rank=3), 0)
    for _, parameter in attached.parameters():
        parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
    adapter_folder.save(model, attached, tmp_path / "adapter", "../base",
                        adapter_folder.weights_digest(tmp_path / "base"))
    (tmp_path / "adapter" / "config.json").write_text((tmp_path / "base" / "config.json").read_text())
    sources, targets = tokens(1, 9), tokens(1, 5, 1)
    with torch.no_grad():
        wanted = model(sources, targets)
        assert torch.allclose(model_folder.load(tmp_path / "adapter")(sources, targets), wanted, atol=1e-4)
        theirs = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base"),
                                           tmp_path / "adapter").eval()
        mask = torch.ones_like(targets)
        assert torch.allclose(
            theirs(input_ids=sources, attention_mask=torch.ones_like(sources), decoder_input_ids=targets,
                   decoder_attention_mask=mask).logits, wanted, atol=1e-4)
