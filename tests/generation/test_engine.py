"""Sampling against transformers, against the distribution, and against itself in other company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from trivium.errors import TriviumError
from trivium.generation import engine as engine_module
from trivium.generation.decoder import buckets
from trivium.generation.engine import Engine, Engines, Sampling, generate
from trivium.generation.sampling import Controls, draw
from trivium.model import LanguageModel, ModelConfig, folder
from trivium.model.adapters import AdapterSettings, attach
from trivium.model.config import RopeScaling
from trivium.randomness import derive


def make(qk_norm=True, vocab=60, positions=128):
    return LanguageModel(
        ModelConfig(vocab_size=vocab, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2,
                    head_dim=8, qk_norm=qk_norm, max_positions=positions)).initialise(4)


def prompts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 60, rng.integers(1, 30)).tolist() for _ in range(count)]


@pytest.mark.parametrize("qk_norm", [True, False])
def test_greedy_equals_transformers(tmp_path, qk_norm):
    model = make(qk_norm)
    folder.save(model, tmp_path, {"eos": 0, "pad": 1})
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    asked = prompts(12)
    ours = generate(model, asked, Sampling(temperature=0.0, max_new_tokens=20), [0], batch_rows=5)
    for prompt, (completion,) in zip(asked, ours, strict=True):
        theirs = oracle.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False,
                                 max_new_tokens=20)
        assert completion.tokens == theirs[0, len(prompt):].tolist()


def test_a_sample_does_not_depend_on_its_company():
    model = make()
    asked = prompts(40)
    together = generate(model, asked, Sampling(max_new_tokens=24, seed=5), [0, 7], samples=3, batch_rows=16)
    for index in (0, 13, 39):
        alone = generate(model, [asked[index]], Sampling(max_new_tokens=24, seed=5), [0, 7], samples=3, keys=[index])
        assert [c.tokens for c in alone[0]] == [c.tokens for c in together[index]]
    assert len({tuple(c.tokens) for c in together[0]}) > 1


def test_log_probs_are_those_of_a_training_forward():
    model = make()
    asked = prompts(20)
    for temperature in (1.0, 0.6):
        for prompt, (completion,) in zip(
                asked, generate(model, asked, Sampling(temperature=temperature, max_new_tokens=12), [0]), strict=True):
            logits = model(torch.tensor([prompt + completion.tokens]))[0] / temperature
            places = torch.arange(len(prompt), len(prompt) + len(completion.tokens))
            expected = torch.log_softmax(logits[places - 1], -1).gather(1,
                                                                        torch.tensor(completion.tokens)[:, None])[:, 0]
            np.testing.assert_allclose(completion.log_probs, expected.detach().numpy(), atol=1e-4)


def test_bf16_is_float32_but_for_rounding():
    exact, asked = make(), prompts(6)
    for prompt, (completion,) in zip(
            asked, generate(make().to(torch.bfloat16), asked, Sampling(max_new_tokens=12, seed=1), [], batch_rows=4),
            strict=True):
        logits = exact(torch.tensor([prompt + completion.tokens]))[0, len(prompt) - 1:-1]
        expected = torch.log_softmax(logits, -1).gather(1,
                                                        torch.tensor(completion.tokens)[:, None])[:,
                                                                                                  0].detach().numpy()
        np.testing.assert_allclose(completion.log_probs, expected, atol=0.05)
        assert np.abs(completion.log_probs - expected).max() > 1e-5  # the products were rounded


def test_frequencies_follow_the_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, -1e9]])
    n = 40_000
    u = torch.from_numpy(np.random.default_rng(0).random(n))
    def drawn_with(**rules):
        return draw(logits.expand(n, -1), Controls([Sampling(**rules)] * n, logits.device), u)[0]

    drawn = drawn_with(temperature=0.7)
    expected = torch.softmax(logits[0] / 0.7, 0) * n
    counts = torch.bincount(drawn, minlength=5)
    assert counts[4] == 0
    assert ((counts[:4] - expected[:4]) ** 2 / expected[:4]).sum() < 16.3  # chi-square, 3 degrees of freedom, p = 0.001
    assert set(drawn_with(top_k=2).tolist()) == {1, 2}
    assert set(drawn_with(top_p=0.5).tolist()) == {2}
    assert set(drawn_with(min_p=0.3).tolist()) == {1, 2}  # e^-1 of the likeliest is enough, e^-2 is not
    assert set(drawn_with(top_k=3, top_p=0.9).tolist()) == {1, 2}
    # as small as numbers get: the likeliest
    assert set(drawn_with(temperature=5e-324).tolist()) == set(drawn_with(top_p=5e-324).tolist()) == {2}
    seen = torch.tensor([[False, False, True, False, False]]).expand(n, -1)
    for penalty, token in ((5e-324, 2), (1e300, 1)):
        tokens, log_probs = draw(logits.expand(n, -1),
                                 Controls([Sampling(temperature=0, repetition_penalty=penalty)] * n, logits.device), u,
                                 seen)
        assert set(tokens.tolist()) == {token} and log_probs.isfinite().all()


def test_ends():
    model = make(positions=40)
    stop = list(range(0, 60, 2))
    for (completion,) in generate(model, prompts(30), Sampling(max_new_tokens=200), stop):
        assert completion.finished == (completion.tokens[-1] in stop)
        assert not any(token in stop for token in completion.tokens[:-1])
    long = generate(model, [[5] * 38], Sampling(temperature=1.0, max_new_tokens=50), [])[0][0]
    assert len(long.tokens) == 2 and not long.finished
    assert generate(model, [], Sampling(), [0]) == []


@pytest.mark.parametrize(("settings", "message"), [({"temperature": -1}, "temperature"), ({"top_p": 0}, "top_p"),
                                                   ({"top_k": -1}, "top_k"), ({"max_new_tokens": 0}, "max_new_tokens"),
                                                   ({"temperature": float("nan")}, "temperature")])
def test_bad_settings(settings, message):
    with pytest.raises(TriviumError, match=message):
        Sampling(**settings)


def test_bad_prompts():
    with pytest.raises(TriviumError, match="prompt 1 has 128 tokens"):
        generate(make(), [[3], [4] * 128], Sampling(), [0])
    with pytest.raises(TriviumError, match="prompt 0 is empty"):
        generate(make(), [[]], Sampling(), [0])


def test_one_prefill_serves_all_samples_of_a_prompt(monkeypatch):
    model = make()
    engine = Engine(model, rows=4)
    computed = []
    monkeypatch.setattr(
        engine.decoder, "prefill", lambda tokens, first, lengths, real=engine.decoder.prefill:
        (computed.append(tuple(tokens.shape)), real(tokens, first, lengths))[1])
    asked = prompts(2, seed=3)
    numbers = [engine.submit(prompt, Sampling(max_new_tokens=9, seed=2), list(range(11)), [0]) for prompt in asked]
    ended = {number: {} for number in numbers}
    while engine.busy:
        for sample in engine.step():
            if sample.reason:
                ended[sample.request][sample.index] = sample.tokens
    assert sum(count for count, _ in computed) == 2  # 22 samples through 4 rows
    for number, prompt in zip(numbers, asked, strict=True):
        alone = Engine(model, rows=11)
        alone.submit(prompt, Sampling(max_new_tokens=9, seed=2), list(range(11)), [0])
        expected = {}
        while alone.busy:
            expected |= {sample.index: sample.tokens for sample in alone.step() if sample.reason}
        assert ended[number] == expected


def test_requests_come_and_go_between_steps():
    model = make()
    alone = generate(model, [[5, 6, 7]], Sampling(max_new_tokens=30), [], keys=["a"])[0][0].tokens
    engine = Engine(model, rows=3)
    engine.submit([5, 6, 7], Sampling(max_new_tokens=30), [derive(0, "a", 0)])
    others = [
        engine.submit(prompt, Sampling(max_new_tokens=60, temperature=t, top_k=k), [i])
        for i, (prompt, t, k) in enumerate(zip(prompts(4), (0, 1, 2, 0.5), (0, 3, 0, 0)))
    ]
    kept = None
    for step in range(200):
        if step == 4:
            assert len(engine.live) == 3 and len(engine.waiting) == 2
            engine.cancel(others[0])
            assert len(engine.live) == 2
        if step == 9:
            for number in others[1:]:
                engine.cancel(number)
            assert [sample.request for sample in engine.live] == [1] and not engine.waiting
        for sample in engine.step():
            kept = sample if sample.request == 1 else kept
        if not engine.busy:
            break
    assert kept.tokens == alone and kept.reason == "length"


@pytest.mark.parametrize("shape",
                         [{"attention_bias": True}, {"sliding_window": 7}, {"num_kv_heads": 1},
                          {"tie_embeddings": False}, {"qk_norm": True}, {"rope_scaling": RopeScaling(8.0, 16)},
                          {"qk_norm": True, "rope_scaling": RopeScaling(4.0, 16, kind="yarn")}])
def test_every_family_decodes_as_it_trains(shape):
    model = LanguageModel(
        ModelConfig(
            **{
                "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 4,
                "num_kv_heads": 2, "head_dim": 8, "qk_norm": False, "max_positions": 128
            } | shape)).initialise(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)) - 0.3)
    asked = prompts(8)
    for prompt, (completion,) in zip(asked, generate(model, asked, Sampling(max_new_tokens=20), [], batch_rows=3),
                                     strict=True):
        logits = model(torch.tensor([prompt + completion.tokens]))[0, len(prompt) - 1:-1]
        expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(completion.tokens)[:, None])[:, 0]
        np.testing.assert_allclose(completion.log_probs, expected.detach().numpy(), atol=1e-4)


def test_repetition_penalty_is_that_of_transformers(tmp_path):
    model = make()
    folder.save(model, tmp_path, {"eos": 0, "pad": 1})
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    asked = prompts(6)
    free = generate(model, asked, Sampling(temperature=0.0, max_new_tokens=20), [0])
    ours = generate(model, asked, Sampling(temperature=0.0, max_new_tokens=20, repetition_penalty=1.7), [0],
                    batch_rows=2)
    for prompt, (completion,) in zip(asked, ours, strict=True):
        theirs = oracle.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False,
                                 max_new_tokens=20, repetition_penalty=1.7)
        assert completion.tokens == theirs[0, len(prompt):].tolist()
    assert [c.tokens for (c,) in free] != [c.tokens for (c,) in ours]


def test_stop_texts_and_alternatives():
    def letters(tokens):
        return "".join(chr(65 + token) for token in tokens)

    model = make()
    free = generate(model, [[5, 6]], Sampling(max_new_tokens=40, seed=3), [])[0][0]
    stop = letters(free.tokens[17:20])
    stopped = generate(model, [[5, 6]], Sampling(max_new_tokens=40, seed=3, stop=(stop, "nothing")), [],
                       decode=letters)[0][0]
    end = letters(free.tokens).index(stop) + 3
    assert stopped.tokens == free.tokens[:end] and stopped.finished
    with pytest.raises(TriviumError, match="stop texts need"):
        generate(model, [[5]], Sampling(stop=("x",)), [])
    engine = Engine(model, rows=2)
    engine.submit([5, 6], Sampling(max_new_tokens=4, temperature=0.5), [1], top=3)
    while engine.busy:
        (sample,) = engine.step()
    for place, (token, (log_prob, top)) in enumerate(zip(sample.tokens, sample.plain, strict=True)):
        expected = torch.log_softmax(model(torch.tensor([[5, 6, *sample.tokens[:place]]]))[0, -1], -1)
        assert log_prob == pytest.approx(float(expected[token].detach()), abs=1e-4)
        assert [token for token, _ in top] == expected.topk(3).indices.tolist()


def test_shapes_of_captured_steps():
    assert buckets(1, 5, 32, 512) == (1, 128) and buckets(5, 128, 32, 512) == (8, 128)
    assert buckets(33, 500, 48, 509) == (48, 509)


def test_a_batch_is_as_large_as_the_memory_for_it(monkeypatch):
    """A row of 300 tokens has keys and values of 2 layers, each with one head of 16 numbers of 4 bytes."""
    model = LanguageModel(ModelConfig(vocab_size=40, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2,
                                      num_kv_heads=1, head_dim=16, max_positions=400)).initialise(0)
    row = 2 * 2 * 16 * 4 * 300
    for many, expected in ((200.5, 128), (7.5, 7), (0.5, 1)):
        monkeypatch.setattr(engine_module, "CACHE_BYTES", int(many * row))
        assert engine_module.affordable(model, 300, 128) == expected
    few = generate(model, [[1, 2], [3], [4, 5]], Sampling(temperature=0.0, max_new_tokens=9), [])
    monkeypatch.setattr(engine_module, "CACHE_BYTES", 2**30)
    many = generate(model, [[1, 2], [3], [4, 5]], Sampling(temperature=0.0, max_new_tokens=9), [])
    assert [[one.tokens for one in group] for group in few] == [[one.tokens for one in group] for group in many]


def test_a_kept_engine_says_what_a_new_one_says():
    """After every change of the weights, for prompts of other lengths, and after a call that was broken off."""
    engines, model = Engines(keep=True), make()
    stop = Exception("enough")

    def broken(done, total):
        raise stop

    def same(model, asked, **rules):
        rules = Sampling(max_new_tokens=20, **rules)
        kept, new = (generate(model, asked, rules, [0], samples=2, engines=given) for given in (engines, None))
        for ours, theirs in zip(kept, new, strict=True):
            assert [one.tokens for one in ours] == [one.tokens for one in theirs]
            for one, other in zip(ours, theirs, strict=True):
                assert (one.log_probs == other.log_probs).all()

    same(model, prompts(7))
    first = engines.kept
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    same(model, prompts(5, seed=1), repetition_penalty=1.2)
    with pytest.raises(Exception, match="enough"):
        generate(model, prompts(7), Sampling(max_new_tokens=20), [0], engines=engines, progress=broken)
    same(make().initialise(9), prompts(7))
    assert engines.kept is first
    same(make(), prompts(30))
    assert engines.kept is not first
    same(make(vocab=70), prompts(4))
    with torch.autocast("cpu", torch.bfloat16):
        same(make(), prompts(4))
    assert Engines().engine(make(), 4, 50, None) is not Engines(keep=False).kept


def test_an_engine_of_a_model_with_adapters_is_not_kept():
    engines, model = Engines(keep=True), make()
    attach(model, AdapterSettings(rank=2), 0)
    generate(model, [[1, 2]], Sampling(max_new_tokens=3), [], engines=engines)
    assert engines.kept is None
