"""Packing, and that a tree in a packed row computes what its branches compute alone."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig
from trivium.model.attention import bias_of, both_ways_attention, causal_attention, masked_attention, packed_attention
from trivium.objectives.language_modeling import token_log_probs
from trivium.training.batch import PLAIN_FROM, Tree, hidden_states, make_batch, pack
from trivium.training.epochs import Limit, fits

CONFIG = ModelConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1,
                     head_dim=16)


@given(st.lists(st.integers(1, 40), max_size=60))
def test_packing_keeps_every_item_once_and_within_bounds(lengths):
    rows = pack(lengths, 40)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 40 for row in rows)
    assert len(rows) <= 2 * (sum(lengths) // 40 + 1)


def test_an_item_longer_than_a_row_is_refused():
    with pytest.raises(TriviumError, match="does not fit"):
        pack([41], 40)


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.tuples(st.integers(1, 8), st.lists(st.integers(1, 9), min_size=1, max_size=4)), min_size=1, max_size=5),
    st.integers(0, 100))
def test_shared_prompts_give_what_separate_passes_give(shapes, seed):
    rng = np.random.default_rng(seed)
    trees = [Tree(rng.integers(0, 50, p), tuple(rng.integers(0, 50, r) for r in rs)) for p, rs in shapes]
    rows = pack([len(tree) for tree in trees], 64)
    batch = make_batch([[trees[i] for i in row] for row in rows], 64, len(rows) + 1)
    model = LanguageModel(CONFIG).initialise(0)
    hidden = hidden_states(model.model, batch)
    got = token_log_probs(hidden[batch.sources], model.lm_head.weight, batch.targets)
    owner = 0
    for tree in batch.trees:
        for response in tree.responses:
            tokens = torch.from_numpy(np.concatenate([tree.prompt, response]))[None]
            logits = torch.log_softmax(model(tokens)[0], -1)
            places = torch.arange(len(tree.prompt), tokens.shape[1])
            expected = logits[places - 1].gather(1, tokens[0, places][:, None])[:, 0]
            torch.testing.assert_close(got[batch.owners == owner], expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(hidden[batch.ends[owner]], model.model(tokens)[0, -1], atol=1e-5, rtol=1e-5)
            owner += 1


def test_only_masked_in_tokens_are_targets():
    tree = Tree(np.array([1, 2]), (np.array([3, 4, 5, 6]),), (np.array([True, False, False, True]),))
    batch = make_batch([[tree]], 8)
    assert batch.targets.tolist() == [3, 6] and batch.sources.tolist() == [1, 4] and batch.counts["tokens"] == 2


def test_without_a_prompt_the_first_token_is_no_target():
    batch = make_batch([[Tree(np.array([], np.int64), (np.array([7, 8, 9]),))]], 4)
    assert batch.targets.tolist() == [8, 9] and batch.sources.tolist() == [0, 1]


def test_attention_without_a_mask_computes_the_same():
    """Rows that hold one chain each, padded or not, with a window and without; a shared prompt or a second document
    needs the mask."""
    rng = np.random.default_rng(0)

    def tree(size, responses=1):
        return Tree(rng.integers(0, 50, 3), tuple(rng.integers(0, 50, size - 3) for _ in range(responses)))

    for window in (None, 100):
        config = replace(CONFIG, max_positions=PLAIN_FROM,
                         **({"sliding_window": window, "qk_norm": False} if window else {}))
        model = LanguageModel(config).initialise(0)
        batch = make_batch([[tree(PLAIN_FROM)], [tree(300)]], PLAIN_FROM, 3)
        assert batch.plain
        found = []
        for plain in (True, False):
            batch.plain = plain
            loss = token_log_probs(
                hidden_states(model.model, batch)[batch.sources], model.lm_head.weight, batch.targets).sum()
            found.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
        for ours, masked in zip(*found, strict=True):
            torch.testing.assert_close(ours, masked, atol=1e-4, rtol=1e-5)
    assert not make_batch([[tree(9), tree(9)]], 32).plain and not make_batch([[tree(9, 2)]], 32).plain


def test_heads_that_share_keys_see_what_each_would_see_alone():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 9, 8, generator=generator) for heads in (6, 2, 2))
    documents, positions = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, -1]]), torch.tensor([[0, 1, 2, 3, 4, 3, 4, 5, 0]])
    parents = torch.tensor([[-2] * 3 + [0] * 5 + [-2]])
    for attend in (packed_attention(documents, parents, positions), both_ways_attention(documents),
                   causal_attention(4), causal_attention()):
        alone = [attend(0, q[:, h:h + 1], k[:, h // 3:h // 3 + 1], v[:, h // 3:h // 3 + 1]) for h in range(6)]
        torch.testing.assert_close(attend(0, q, k, v), torch.cat(alone, 1))


def test_no_kernel_is_asked_for_a_mask_and_shared_heads_on_a_gpu(monkeypatch):
    """By tensors that say they are on one; on a processor the kernel shares."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    asked, real = {}, torch.nn.functional.scaled_dot_product_attention

    def asking(q, k, v, **more):
        asked[q.device.type] = (k.shape[1], v.shape[1], more["enable_gqa"], more["scale"])
        return real(q, k, v, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", asking)
    with FakeTensorMode():
        for device in ("cpu", "cuda"):
            q, k, v = (torch.empty(1, heads, 9, 8, device=device) for heads in (6, 2, 2))
            assert masked_attention(q, k, v, torch.ones(9, 9, dtype=torch.bool, device=device), 0.5).shape == q.shape
    assert asked == {"cpu": (2, 2, True, 0.5), "cuda": (6, 6, False, 0.5)}


def test_what_has_nothing_to_learn_from_is_counted_and_left_out():
    said, tokens, limit = [], np.arange(3), Limit(12, 40)
    good, empty = Tree(tokens, (tokens, tokens)), Tree(tokens, (tokens, tokens[:0]))
    long = Tree(np.arange(11), (tokens,))
    assert fits([good, empty, long, empty], limit, said.append) == [good]
    assert said[0].startswith("2 ") and "no tokens" in said[0]
    assert "1 of 2" in said[1] and "`length: 14`" in said[1]
    with pytest.raises(TriviumError, match="every row has a response of no tokens"):
        fits([empty], limit, said.append)
    with pytest.raises(TriviumError, match="none of 1"):
        fits([long, empty], limit, said.append)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_bias_hides_what_its_mask_hides(kind):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 9, 16, generator=generator).to(kind) for _ in range(3))
    mask = torch.rand(2, 1, 9, 9, generator=generator) < 0.5
    mask |= torch.eye(9, dtype=torch.bool)
    bias = bias_of(mask, kind)
    assert torch.equal(bias == 0, mask) and torch.equal(bias == float("-inf"), ~mask)
    assert bias.dtype == kind and bias.stride()[-2:] == (16, 1)
    for told in (bias, bias.float(), bias.double()):
        assert torch.equal(masked_attention(q, k, v, told), masked_attention(q, k, v, mask))


def test_on_a_gpu_all_layers_share_one_bias(monkeypatch):
    """By tensors that say they are on one; behind a prefix the bias is longer. On a processor there is none."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    asked, real = [], torch.nn.functional.scaled_dot_product_attention

    def asking(q, k, v, attn_mask, **more):
        asked.append(attn_mask)
        return real(q, k, v, attn_mask=attn_mask, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", asking)
    monkeypatch.setattr("trivium.model.attention.bias_of",
                        lambda mask, kind: torch.empty(mask.shape, dtype=kind, device=mask.device))
    for device in ("cpu", "cuda"):
        with FakeTensorMode() if device == "cuda" else contextlib.nullcontext():
            places = torch.zeros(1, 9, dtype=torch.int64, device=device)
            attend = packed_attention(places, places, places, kind=torch.bfloat16)
            for before in (0, 0, 3):
                q, k = (torch.zeros(1, 2, n, 8, device=device, dtype=torch.bfloat16) for n in (9, before + 9))
                attend(0, q, k, k)
    assert [mask.dtype for mask in asked] == [torch.bfloat16] * 3
    assert asked[0] is asked[1] and [mask.shape[-1] for mask in asked] == [9, 9, 12]


def test_to_a_gpu_batches_go_from_page_locked_memory_without_waiting(monkeypatch):
    """There is no GPU here: what is asked of one is looked at."""
    asked = []

    def to(tensor, device, **more):
        asked.append((device, more))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: asked.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", to)
    batch = make_batch([[Tree(np.arange(3), (np.arange(4),))]], 16)
    batch.extra["weights"] = torch.ones(4)
    moved = batch.to(torch.device("cuda"))
    assert asked == ["pinned", (torch.device("cuda"), {"non_blocking": True})] * 10
    assert (moved.trees, moved.counts, moved.plain) == (batch.trees, batch.counts, batch.plain)
    torch.testing.assert_close(moved.extra["weights"], batch.extra["weights"])
