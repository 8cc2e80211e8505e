"""Encoders: their folders in ``transformers``, and texts that share a row."""

from __future__ import annotations

import json

import pytest
import torch

from trivium.errors import TriviumError
from trivium.model.config import EncoderConfig
from trivium.model.encoder import Classifier, MaskedModel, load_encoder, save_encoder

CONFIG = EncoderConfig(vocab_size=120, hidden_size=48, intermediate_size=80, num_layers=3, num_heads=3, num_kv_heads=3,
                       head_dim=16, max_positions=64)
IDS = {"pad": 1, "document": 0}


def encoder(seed=0):
    model = MaskedModel(CONFIG).initialise(seed).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    return model


def test_transformers_loads_the_folder_and_gives_the_same_logits(tmp_path):
    from transformers import AutoModelForMaskedLM
    model = encoder()
    save_encoder(model, tmp_path, IDS)
    other = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    tokens = torch.randint(2, 120, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(model(tokens), other(tokens).logits, atol=2e-5)
        assert torch.equal(load_encoder(tmp_path)(tokens), model(tokens))


def test_transformers_loads_a_classifier_and_gives_the_same_logits(tmp_path):
    from transformers import AutoModelForSequenceClassification
    model = Classifier.from_encoder(encoder(), ["bad", "good", "so-so"], 3).eval()
    save_encoder(model, tmp_path, IDS)
    other = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokens = torch.randint(2, 120, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0
    documents = torch.where(mask.bool(), torch.tensor([[0], [1]]), -1)
    with torch.no_grad():
        assert torch.allclose(model(tokens, documents), other(tokens, attention_mask=mask).logits, atol=2e-5)
        assert other.config.id2label == {0: "bad", 1: "good", 2: "so-so"
                                         } and load_encoder(tmp_path).labels == model.labels


def test_texts_that_share_a_row_do_not_see_each_other():
    model = Classifier.from_encoder(encoder(), ["a", "b"], 0).eval()
    first, second = torch.randint(2, 120, (1, 5)), torch.randint(2, 120, (1, 7))
    row = torch.cat([first, second, torch.ones(1, 2, dtype=torch.int64)], 1)
    documents = torch.tensor([[0] * 5 + [1] * 7 + [-1] * 2])
    with torch.no_grad():
        assert torch.allclose(model(row, documents), torch.cat([model(first), model(second)]), atol=1e-5)


def test_attention_goes_both_ways():
    model, tokens = encoder(), torch.randint(2, 120, (1, 8))
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 120
    with torch.no_grad():
        assert not torch.allclose(model(tokens)[0, 0], model(changed)[0, 0])


@pytest.mark.parametrize(("change", "message"), [
    ({"model_type": "bert"}, "an encoder's is 'modernbert'"),
    ({"hidden_activation": "gelu"}, "only 'silu' is supported"),
    ({"layer_types": ["sliding_attention"] * 3}, "the whole text"),
    ({"intermediate_size": 64}, "do not fit config.json"),
])
def test_a_folder_that_is_not_ours_says_why(tmp_path, change, message):
    save_encoder(encoder(), tmp_path, IDS)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TriviumError, match=message):
        load_encoder(tmp_path)


def test_a_shape_that_modernbert_cannot_have_is_refused():
    with pytest.raises(TriviumError, match="kv_heads"):
        EncoderConfig(hidden_size=48, num_heads=3, num_kv_heads=1, head_dim=16)
