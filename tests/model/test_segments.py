"""Attention by segments is what the mask says, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.model import LanguageModel, ModelConfig
from trivium.model.attention import attention_by, both_ways_attention, packed_attention, tree_mask
from trivium.model.segments import document_parts, pair_parts, segment_attention, tree_parts
from trivium.training import batch as batches
from trivium.training.batch import Tree, hidden_states, make_batch
from trivium.training.parallel import compile_block


def tree(prompt, *responses):
    return Tree(np.arange(prompt), tuple(np.arange(size) for size in responses))


TREES = st.builds(tree, st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)) | st.builds(
    tree, st.integers(1, 12), st.integers(1, 5)) | st.builds(tree, st.integers(1, 12))


def gradients(attend, q, k, v, weights):
    leaves = [one.detach().clone().requires_grad_() for one in (q, k, v)]
    out = attend(0, *leaves) * (weights != 0)
    (out * weights).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def made(documents, heads, shared, before, kind, seed):
    rows, length = documents.shape
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(rows, heads, length, 8, generator=generator, dtype=torch.float64).to(kind)
    k, v = (torch.randn(rows, heads // shared, before + length, 8, generator=generator, dtype=torch.float64).to(kind)
            for _ in range(2))
    weights = torch.randn(q.shape, generator=generator, dtype=torch.float64).to(kind)
    return q, k, v, weights * (documents >= 0)[:, None, :, None]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(TREES, max_size=4), min_size=1, max_size=3), st.sampled_from([None, 1, 2, 3, 7, 30]),
       st.sampled_from([1, 2]), st.sampled_from([0, 3]), st.integers(0, 99))
def test_it_is_what_the_mask_says(rows, window, shared, before, seed):
    batch = make_batch(rows, max(1, *(sum(map(len, row)) for row in rows)) + 2)
    q, k, v, weights = made(batch.documents, 4, shared, before, torch.float64, seed)
    parts = tree_parts(batch.documents.numpy(), batch.parents.numpy(), window)
    mask = tree_mask(batch.documents, batch.parents, batch.positions, window)
    for found, wanted in zip(gradients(segment_attention(parts, window), q, k, v, weights),
                             gradients(attention_by(mask), q, k, v, weights), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kind", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_number_formats_lose_what_they_always_lose(kind, off):
    batch = make_batch([[tree(20, 9, 30, 7, 11), tree(0, 40)], [tree(60, 20)]], 130)
    exact = made(batch.documents, 4, 2, 0, torch.float64, 0)
    attend = segment_attention(tree_parts(batch.documents.numpy(), batch.parents.numpy()))
    for found, wanted in zip(gradients(attend, *(one.to(kind) for one in exact)), gradients(attend, *exact),
                             strict=True):
        assert float((found.double() - wanted).abs().max() / wanted.abs().max()) < off


@pytest.mark.parametrize("width", [4, 12])
def test_values_may_have_a_width_of_their_own(width):
    batch = make_batch([[tree(5, 4, 6), tree(7)]], 30)
    q, k, _, _ = made(batch.documents, 4, 2, 0, torch.float64, 3)
    v = torch.randn(*k.shape[:3], width, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    weights = torch.ones(*q.shape[:3], width, dtype=torch.float64) * (batch.documents >= 0)[:, None, :, None]
    mask = attention_by(tree_mask(batch.documents, batch.parents, batch.positions))
    for found, wanted in zip(gradients(packed_attention(batch.documents, batch.parents, batch.positions), q, k, v,
                                       weights), gradients(mask, q, k, v, weights), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_encoders_see_both_ways_and_two_texts_see_each_other():
    batch = make_batch([[tree(5), tree(7)], [tree(12)]], 14)
    q, k, v, weights = made(batch.documents, 4, 2, 0, torch.float64, 1)
    mask = attention_by((batch.documents[:, :, None] == batch.documents[:, None, :])[:, None])
    for found, wanted in zip(gradients(both_ways_attention(batch.documents), q, k, v, weights),
                             gradients(mask, q, k, v, weights), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    parts = pair_parts(batch.documents.numpy(), batch.documents.flip(1).numpy())
    mask = attention_by((batch.documents[:, :, None] == batch.documents.flip(1)[:, None, :])[:, None])
    for found, wanted in zip(gradients(segment_attention(parts), q, k, v, weights),
                             gradients(mask, q, k, v, weights), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_segments_that_are_scattered_are_left_to_the_mask():
    scattered = np.array([[0, 1, 0, 1]]), np.full((1, 4), -2)
    assert tree_parts(*scattered) is None and document_parts(scattered[0]) is None
    grandchild = np.array([[0, 1, 2, 2]]), np.array([[-2, 0, 1, 1]])
    assert tree_parts(*grandchild) is None
    for documents, parents in (scattered, grandchild):
        told = [torch.from_numpy(one) for one in (documents, parents)]
        positions = torch.zeros_like(told[0])
        q, k, v, weights = made(told[0], 2, 1, 0, torch.float64, 2)
        for found, wanted in zip(gradients(packed_attention(*told, positions), q, k, v, weights),
                                 gradients(attention_by(tree_mask(*told, positions)), q, k, v, weights), strict=True):
            assert torch.equal(found, wanted)


def small(**more):
    return LanguageModel(ModelConfig(vocab_size=50, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2,
                                     head_dim=8, intermediate_size=64, max_positions=256, qk_norm=False,
                                     **more)).initialise(0)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("empty", [False, True])
def test_rows_in_a_line_are_the_rows(monkeypatch, window, empty):
    model = small(sliding_window=window).double()
    batch = make_batch([] if empty else [[tree(6, 4, 5, 3), tree(9)], [tree(0, 12)]], 40, 3)
    seen = []
    model.model.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape))
    in_line = hidden_states(model.model, batch)
    monkeypatch.setattr(batches, "hidden_in_line", lambda trunk, batch, vectors: trunk(
        batch.tokens, batch.positions, attention_by(tree_mask(batch.documents, batch.parents, batch.positions, window))
    ).flatten(0, 1))
    rows = hidden_states(model.model, batch)
    assert seen == [torch.Size([1, max(1, batch.real)]), torch.Size([3, 40])]
    real = batch.documents.flatten() >= 0
    torch.testing.assert_close(in_line[real], rows[real], rtol=1e-12, atol=1e-12)
    if not empty:
        assert not in_line[~real].any()


@pytest.mark.parametrize("kind", [pytest.param(torch.float32, marks=pytest.mark.long), torch.bfloat16])
def test_a_compiled_block_learns_the_same_from_lines_of_any_length(kind):
    """And is compiled no more than a few times for them."""
    torch._dynamo.reset()
    torch._dynamo.config.allow_unspec_int_on_nn_module = True
    eager, compiled = small(), small()
    for block in compiled.model.layers:
        compile_block(block)
    torch._dynamo.utils.counters.clear()
    for number, sizes in enumerate([(3, 4, 5), (9, 2), (20, 6, 7, 5), (1, 2), (30, 3, 3)]):
        batch = make_batch([[tree(*sizes), tree(number + 2, 4)]], 80)
        found = []
        for model in (eager, compiled):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
                hidden = hidden_states(model.model, batch).float()
            (hidden * torch.linspace(-1, 1, hidden.shape[1])).square().sum().backward()
            found.append([hidden.detach(), *(one.grad for one in model.model.parameters())])
        off = 1e-5 if kind == torch.float32 else 5e-2
        for one, other in zip(*found, strict=True):
            assert float((one - other).abs().max()) <= off * float(other.abs().max())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
