"""Log-probabilities of tokens beside the text that they make: places, stop texts, streams, and prompts given back."""

from __future__ import annotations

import openai
import pytest
import torch

from trivium.evaluation.likelihood import score_continuations
from trivium.model import folder
from trivium.serving.text import GrowingText, ToldTokens
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.token_bytes import token_bytes


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def tokenizer(folders):
    return ChatTokenizer.load(folders["one"])


def tell(tokenizer, tokens, stops=(), whole=False):
    """The text of tokens, and the names and places of those that are told, given out at once or one by one."""
    growing, told, text, found = GrowingText(tokenizer, stops), ToldTokens(tokenizer, False), "", []
    pieces = [tokens] if whole else [[token] for token in tokens]
    for number, piece in enumerate(pieces, 1):
        last = number == len(pieces)
        new = growing.push(piece, last)
        text += new
        part = told.push(piece, [(-1.0, [])] * len(piece), len(new), growing.done, last)
        if part:
            assert all(place <= len(text) for place in part["text_offset"])
            found += zip(part["tokens"], part["text_offset"], strict=True)
        if growing.done:
            break
    return text, found


def places_of(tokenizer, tokens):
    """By brute force: the character, or the bytes that are none and become U+FFFD, in which each token begins."""
    known, owner = token_bytes(tokenizer), []
    data = b"".join(known[token] for token in tokens)
    while len(owner) < len(data):
        rest = data[len(owner) : len(owner) + 4]
        try:
            size = len(rest.decode()[0].encode())
        except UnicodeDecodeError as error:
            size = len(rest[: error.start].decode()[:1].encode()) or error.end
        owner += [owner[-1] + 1 if owner else 0] * size
    return [owner[sum(len(known[token]) for token in tokens[:place])] for place in range(len(tokens))]


@pytest.mark.parametrize(
    "text", ["to be, or not", "河水 is long, 长", "a😀b👨‍👩‍👧 family", "naïve café", "𠀀𠀁 rare"]
)
def test_places_count_characters_and_not_their_parts(tokenizer, text):
    tokens = tokenizer.encode(text)
    for whole in (True, False):
        said, told = tell(tokenizer, tokens, whole=whole)
        assert said == text and [place for _, place in told] == places_of(tokenizer, tokens)
        assert all(text[place:].startswith(name) for name, place in told if "\ufffd" not in name)


def test_places_beside_bytes_that_are_no_characters(tokenizer):
    parts = [token for token in range(tokenizer.vocab_size) if len(token_bytes(tokenizer)[token]) == 1]
    draw = torch.Generator().manual_seed(0)
    for _ in range(100):
        tokens = [parts[i] for i in torch.randint(len(parts), (12,), generator=draw).tolist()]
        assert [place for _, place in tell(tokenizer, tokens, whole=True)[1]] == places_of(tokenizer, tokens)


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        ("to be STOP or not", "STOP"),
        ("to be STOP or", "TOP o"),
        ("河水很长。以后", "。以"),
        ("😀😁", "😁"),
        ("aaab", "aab"),
    ],
)
def test_tokens_of_a_stop_text_are_not_told(tokenizer, text, stop):
    tokens, kept = tokenizer.encode(text), text[: text.index(stop)]
    expected = [place for place in places_of(tokenizer, tokens) if place < len(kept)]
    for whole in (True, False):
        said, told = tell(tokenizer, tokens, [stop], whole)
        assert said == kept and [place for _, place in told] == expected


def test_a_stream_tells_the_same_places(client):
    request = {"model": "one", "prompt": "not to be", "max_tokens": 30, "seed": 4, "logprobs": 2}
    free = client.completions.create(**request).choices[0]
    stop = free.text[12:15]
    for more in ({}, {"stop": stop}):
        whole = client.completions.create(**request, **more).choices[0]
        parts = [part.choices[0] for part in client.completions.create(**request, **more, stream=True)]
        for name in ("tokens", "text_offset", "token_logprobs"):
            streamed = [one for part in parts if part.logprobs for one in getattr(part.logprobs, name)]
            assert (
                streamed == pytest.approx(getattr(whole.logprobs, name))
                if name == "token_logprobs"
                else (streamed == getattr(whole.logprobs, name))
            )
        assert all(place < len(whole.text) for place in whole.logprobs.text_offset) and whole.logprobs.text_offset[-1]
    chat = {
        "model": "one",
        "messages": [{"role": "user", "content": "be"}],
        "seed": 4,
        "max_tokens": 30,
        "logprobs": True,
    }
    free = client.chat.completions.create(**chat).choices[0].message.content
    cut = client.chat.completions.create(**chat, stop=free[10:13]).choices[0]
    assert "".join(token.token for token in cut.logprobs.content).startswith(cut.message.content)
    assert len("".join(token.token for token in cut.logprobs.content[:-1])) < len(cut.message.content)


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_a_prompt_that_is_given_back_has_the_models_own_log_probabilities(client, folders, tokenizer, max_tokens):
    model, texts = folder.load(folders["one"]).eval(), ["to be, or not", "你好，世界。 that is"]
    ids = [tokenizer.opened(text) for text in texts]
    request = {"model": "one", "max_tokens": max_tokens, "logprobs": 1, "temperature": 0}
    for prompt in (texts, ids):
        found = client.completions.create(prompt=prompt, echo=True, **request)
        assert found.usage.completion_tokens == (2 * max_tokens)
        for choice, text, tokens in zip(found.choices, texts, ids, strict=True):
            log_probs = choice.logprobs.token_logprobs
            with torch.no_grad():
                logits = model(torch.tensor([tokens]))[0].log_softmax(-1)
            expected = [float(logits[i, token]) for i, token in enumerate(tokens[1:])]
            assert log_probs[0] is None and log_probs[1 : len(tokens)] == pytest.approx(expected, abs=1e-4)
            assert choice.text.startswith(text) and len(log_probs) == len(tokens) + max_tokens
            assert choice.logprobs.text_offset[: len(tokens)] == places_of(tokenizer, tokens)
            greedy = [
                max(top.values()) == one
                for top, one in zip(choice.logprobs.top_logprobs[1:], log_probs[1:], strict=True)
            ]
            assert greedy[: len(tokens) - 1] == [int(row.argmax()) == token for row, token in zip(logits, tokens[1:])]
            if max_tokens:
                plain = client.completions.create(prompt=text, **request).choices[0]
                assert choice.text == text + plain.text
                assert log_probs[len(tokens) :] == pytest.approx(plain.logprobs.token_logprobs, abs=1e-4)
    streamed = list(client.completions.create(prompt=texts[0], echo=True, stream=True, **request))
    assert (
        "".join(part.choices[0].text for part in streamed)
        == client.completions.create(prompt=texts[0], echo=True, **request).choices[0].text
    )


def test_choices_are_scored_as_an_examination_scores_them(client, folders, tokenizer):
    model, context, choices = folder.load(folders["one"]).eval(), "to be or", [" not", " the question", "，世界"]
    before = tokenizer.encode(context)
    after = [tokenizer.encode(context + choice)[len(before) :] for choice in choices]
    expected = score_continuations(model, [before], [after])[0]
    found = client.completions.create(
        model="one", prompt=[before + ids for ids in after], echo=True, logprobs=1, max_tokens=1, temperature=0
    )
    for choice, (score, likeliest) in zip(found.choices, expected, strict=True):
        scored = choice.logprobs.token_logprobs[len(before) : -1]
        tops = choice.logprobs.top_logprobs[len(before) : -1]
        assert sum(scored) == pytest.approx(score, abs=1e-4)
        assert all(one == max(top.values()) for one, top in zip(scored, tops, strict=True)) == likeliest


def test_max_tokens_0_without_echo_asks_for_nothing(client):
    with pytest.raises(openai.BadRequestError, match="goes with echo alone"):
        client.completions.create(model="one", prompt="x", max_tokens=0)
