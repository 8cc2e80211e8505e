"""Models that see: pictures in a prompt, folders, and what is refused."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from trivium.errors import TriviumError
from trivium.generation.engine import Sampling, generate
from trivium.model import LanguageModel, ModelConfig, folder
from trivium.model import images as pictures
from trivium.model.config import VisionConfig
from trivium.model.vision import SeeingModel, VisionEncoder, load_vision

CONFIG = ModelConfig(vocab_size=60, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2,
                     head_dim=8, max_positions=64)
EYES = VisionConfig(size=8, patch=4, hidden_size=24, intermediate_size=32, num_layers=1, num_heads=3, num_kv_heads=3,
                    head_dim=8)
PICTURE = 1


def seeing(seed=0):
    model = SeeingModel.from_language_model(LanguageModel(CONFIG).initialise(seed), EYES, PICTURE)
    model.vision.initialise(seed)
    model.projector.initialise(seed)
    with torch.no_grad():
        model.projector.linear_2.weight.mul_(20)  # so that pictures matter to a random model
    return model.eval()


def pixels(count, seed=0):
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def png(width, height, colour=0):
    file = io.BytesIO()
    Image.new("L", (width, height), colour).save(file, "PNG")
    return file.getvalue()


def test_patches_are_cut_row_by_row():
    picture = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    cut = VisionEncoder(EYES).cut(picture)
    assert cut.shape == (1, 4, 16)
    assert torch.allclose((cut[0, 1] + 1) * 127.5, picture[0, 0, :4, 4:].flatten().float(), atol=1e-4)


@torch.no_grad()
def test_a_picture_in_a_prompt_changes_the_answer_and_text_alone_is_as_before():
    model = seeing()
    prompt = torch.tensor([[2, *[PICTURE] * 4, 9, 10]])
    one, other = (model.model(model.vectors(prompt, model.pictures(pixels(1, seed)))) for seed in (0, 1))
    assert not torch.allclose(one[0, -1], other[0, -1], atol=1e-3)
    assert torch.equal(model.model(model.vectors(prompt, None)), model.model(prompt))
    with pytest.raises(TriviumError, match="4 places for pictures, but the pictures have 8 patches"):
        model.vectors(prompt, model.pictures(pixels(2)))


@pytest.mark.parametrize("plain", [False, True])
@torch.no_grad()
def test_the_engine_sees_what_the_model_sees(plain):
    model = seeing()
    if plain:
        from trivium.model.adapters import AdapterSettings, attach
        attach(model, AdapterSettings(rank=2), 0)
    prompts = [[2, *[PICTURE] * 4, 9, 10], [2, 7, *[PICTURE] * 8, 9], [2, 5, 6]]
    seen = [model.pictures(pixels(1, 3)), model.pictures(pixels(2, 4)), None]
    answers = generate(model, prompts, Sampling(temperature=0, max_new_tokens=5), [], pictures=seen)
    for prompt, picture, answer in zip(prompts, seen, answers, strict=True):
        tokens = list(prompt)
        for token in answer[0].tokens:
            logits = model.lm_head(model.model(model.vectors(torch.tensor([tokens]), picture)))[0, -1]
            assert token == int(logits.argmax())
            tokens.append(token)
    assert answers[0][0].tokens != generate(model, prompts[:1], Sampling(temperature=0, max_new_tokens=5), [],
                                            pictures=[model.pictures(pixels(1, 9))])[0][0].tokens
    with pytest.raises(TriviumError, match="reads text alone"):
        generate(LanguageModel(CONFIG).initialise(0), prompts[:1], Sampling(max_new_tokens=1), [], pictures=seen[:1])


@torch.no_grad()
def test_a_folder_sees_again_and_its_decoder_loads_in_transformers(tmp_path):
    from transformers import AutoModelForCausalLM
    model = seeing()
    folder.save(model, tmp_path, {"eos": 5, "pad": 1})
    again = folder.load(tmp_path)
    prompt = torch.tensor([[2, *[PICTURE] * 4, 9, 10]])
    assert isinstance(again, SeeingModel)
    assert torch.equal(again.model(again.vectors(prompt, again.pictures(pixels(1)))),
                       model.model(model.vectors(prompt, model.pictures(pixels(1)))))
    assert torch.allclose(AutoModelForCausalLM.from_pretrained(tmp_path)(prompt).logits, model(prompt), atol=1e-4)
    assert torch.equal(load_vision(tmp_path)(pixels(1)), model.vision(pixels(1)))
    (tmp_path / "vision.safetensors").write_bytes(b"short")
    with pytest.raises(TriviumError, match="not a readable safetensors"):
        folder.load(tmp_path)


def test_pictures_are_brought_into_shape():
    drawn = np.zeros((40, 80), np.uint8)
    drawn[:, 40:] = 255
    data = base64.b64decode(pictures.data_url(drawn).partition(",")[2])
    seen, count = pictures.decode_picture(data, 8, 1)
    assert seen.shape == (1, 8, 8) and count == 3200
    # padded with the corner's black
    assert seen[0, 4].tolist() == [0] * 4 + [255] * 4 and seen[0, 0].tolist() == [0] * 8
    clear = io.BytesIO()
    Image.new("RGBA", (5, 5), (0, 0, 0, 0)).save(clear, "PNG")
    assert (pictures.decode_picture(clear.getvalue(), 8, 3)[0] == 255).all()


def bomb(width, height):
    """A PNG of a few dozen bytes that announces any size."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(
        b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("url", "message"), [
    ("https://example.com/cat.png", "not fetched from an address"),
    ("file:///etc/passwd", "not fetched from an address"),
    ("cat.png", "not fetched"),
    ("data:text/html;base64,aGk=", "must begin with data:image"),
    ("data:image/png;base64,%%%", "not valid base64"),
    ("data:image/png;base64,aGVsbG8=", "not a picture that can be read"),
    (b"", "not a picture"),
    (png(9, 9)[:40], "not a picture"),
    (bomb(30_000, 30_000), "far more pixels"),
    (bomb(5000, 5000), "5,000 × 5,000 pixels"),
    (bomb(4, 4), "not a picture"),
    (b"GIF89a" + b"\xff" * 30, "not a picture|pixels"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture"),
])
def test_bad_pictures_are_one_clear_error(url, message):
    if isinstance(url, bytes):
        url = "data:image/png;base64," + base64.b64encode(url).decode()
    with pytest.raises(TriviumError, match=f"message 1: .*({message})") as error:
        pictures.look([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}], 8, 1)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_pictures_of_one_conversation_share_a_budget(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 150)
    part = {"type": "image_url", "image_url": {"url": pictures.data_url(np.zeros((10, 10), np.uint8))}}
    assert len(pictures.look([{"role": "user", "content": [part]}], 8, 1)) == 1
    with pytest.raises(TriviumError, match="together"):
        pictures.look([{"role": "user", "content": [part, part]}], 8, 1)


def test_files_are_read_in_their_folder_alone(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.png").write_bytes(png(8, 8, 7))
    (tmp_path / "in" / "a.png").write_bytes(png(8, 8, 9))
    asked = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}]
    assert (pictures.look(asked, 8, 1, tmp_path / "in") == 9).all()
    asked[0]["content"][0]["image_url"]["url"] = "../out.png"
    with pytest.raises(TriviumError, match="lies outside"):
        pictures.look(asked, 8, 1, tmp_path / "in")


def test_a_picture_that_cannot_be_cut_is_refused():
    with pytest.raises(TriviumError, match="no multiple of patch"):
        VisionConfig(size=28, patch=5)
