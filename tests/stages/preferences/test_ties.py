"""Reward models that learn from ties: what Rao and Kupper, and Davidson, make of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from trivium.files import write_rows
from trivium.model import LanguageModel, ModelConfig
from trivium.objectives.ranking import TIED_LOSSES, ranking_losses
from trivium.progress import Progress
from trivium.stage import Context
from trivium.stages.models import answer_tree, load_reward_model, save_model
from trivium.stages.preferences.rankings import TiedPart, add_pairs, part_of, ranked_tree, spread, ties_of
from trivium.stages.preferences.reward import Reward
from trivium.stages.scores import score_ends
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree, make_batch
from trivium.training.optimizers import Optimization


def rao_kupper(one, other, theta):
    """The probabilities that the first wins, that the other one does, and of a tie, by strengths (1967, eq. 2.1)."""
    return (one / (one + theta * other), other / (other + theta * one),
            one * other * (theta ** 2 - 1) / ((one + theta * other) * (theta * one + other)))


def davidson(one, other, nu):
    """The same (1970, eq. 2.2)."""
    whole = one + other + nu * math.sqrt(one * other)
    return one / whole, other / whole, nu * math.sqrt(one * other) / whole


PAPERS = {"rao_kupper": rao_kupper, "davidson": davidson}


@pytest.mark.parametrize("name", TIED_LOSSES)
@pytest.mark.parametrize("scores", [(1.5, -0.25), (-2.0, 1.0), (0.5, 0.5), (40.0, -3.0)])
@pytest.mark.parametrize("strength", [1.5, 3.0])
def test_a_loss_with_ties_is_the_equation_of_its_paper(name, scores, strength):
    one, other = (torch.tensor([score], dtype=torch.float64) for score in scores)
    no, yes, margin = torch.tensor([False]), torch.tensor([True]), torch.zeros(1, dtype=torch.float64)
    found = [float((-TIED_LOSSES[name](*given, strength=strength)).exp()) for given in (
        (one, other, margin, no), (other, one, margin, no), (one, other, margin, yes))]
    assert found == pytest.approx(PAPERS[name](*map(math.exp, scores), strength), rel=1e-9)
    assert sum(found) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("name", TIED_LOSSES)
def test_half_of_the_pairs_with_equal_scores_are_ties_by_default(name):
    score, yes = torch.zeros(1, dtype=torch.float64), torch.tensor([True])
    assert float(TIED_LOSSES[name](score, score, torch.zeros(1), yes)) == pytest.approx(math.log(2), rel=1e-12)


def test_without_ties_davidsons_loss_nears_bradley_and_terrys():
    one, other, margin = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0]), torch.tensor([0.0, 0.5])
    no = torch.tensor([False, False])
    torch.testing.assert_close(TIED_LOSSES["davidson"](one, other, margin, no, strength=1e-9),
                               ranking_losses(one, other, margin))
    torch.testing.assert_close(TIED_LOSSES["rao_kupper"](one, other, margin, no, strength=1 + 1e-9),
                               ranking_losses(one, other, margin))


@pytest.mark.parametrize("name", TIED_LOSSES)
def test_far_scores_have_finite_losses_and_gradients(name):
    one, other = (torch.tensor([value, -value], requires_grad=True) for value in (3000.0, -3000.0))
    for tied in (True, False):
        losses = TIED_LOSSES[name](one, other, torch.zeros(2), torch.tensor([tied, tied]))
        assert torch.isfinite(losses).all()
        assert all(torch.isfinite(each).all() for each in torch.autograd.grad(losses.sum(), (one, other)))


RESPONSES = ["yes", "no no", "it is"]


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """A model, and rankings: even prompts prefer the first response to the third one, odd ones find the first two
    alike."""
    folder = tmp_path_factory.mktemp("school")
    tokenizer = ChatTokenizer(tokenizer_training.train(["please say it is.", "no no, yes."] * 9, 300))
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=1,
                         num_heads=2, num_kv_heads=1, head_dim=16, max_positions=128)
    (folder / "sft").mkdir()
    save_model(LanguageModel(config).initialise(0), tokenizer, folder / "sft")
    (folder / "ranked").mkdir()
    write_rows(folder / "ranked/comparisons.jsonl", [{
        "prompt": [{"role": "user", "content": f"say {n}"}],
        "responses": RESPONSES[:2] if n % 2 else RESPONSES[::2], "ranking": [[0, 1]] if n % 2 else [[0], [1]],
        "split": "heldout" if n % 4 == 0 else "train"} for n in range(12)])
    return folder


def run(school, folder, **given):
    """The summary, and the scores ``[6, 3]`` that odd prompts' responses get."""
    folder.mkdir(parents=True)
    stage = Reward(length=64, rows=2, **given)
    inputs = {"model": school / "sft", "preferences": school / "ranked"}
    summary = stage.run(Context("r", "reward", 0, inputs, folder, folder / "scratch", Progress(quiet=True), 1))
    model, tokenizer = load_reward_model(folder)
    batch = make_batch([[answer_tree(tokenizer, {"prompt": [{"role": "user", "content": f"say {n}"}]}, RESPONSES)]
                        for n in range(1, 12, 2)], 64)
    with torch.no_grad():
        return summary, score_ends(model, batch).view(6, 3)


@pytest.mark.parametrize("name", TIED_LOSSES)
def test_what_is_tied_is_scored_alike(school, tmp_path, name, precision):
    """Without ties nothing is learned of the second response, which no ordered pair names."""
    given = {"epochs": 20, "precision": precision, "optimization": Optimization(learning_rate=1e-2)}
    summary, scores = run(school, tmp_path / "a", loss=name, **given)
    plain, without = run(school, tmp_path / "b", **given)
    assert summary["accuracy"]["value"] == 1.0 and (scores[:, :2].min(1).values > scores[:, 2] + 1).all()
    apart = [(each[:, 0] - each[:, 1]).abs().mean() for each in (scores, without)]
    assert apart[0] < 0.3 < 1 < apart[1]
    assert (plain["rankings"], summary["rankings"]) == (3, 9)  # ties alone are no ranking to learn an order from
    assert plain["accuracy"]["n"] == summary["accuracy"]["n"] == 3  # what is held out is measured alike


def test_tied_pairs_are_in_one_tree_each_and_are_not_counted_as_ordered():
    ranking = [[0, 1], [2], [3, 4, 5]]
    assert ties_of(ranking) == [(0, 1), (3, 4), (3, 5), (4, 5)]
    tree = Tree(np.arange(4), tuple(np.arange(5 + n) for n in range(6)), payload=TiedPart(
        tuple((a, b) for a in range(6) for b in range(a + 1, 6)), 15, (1.0,) * 6, (), tuple(ties_of(ranking))))
    parts = spread(tree, 26)
    assert len(parts) > 3
    met = [tuple(sorted((len(part.responses[a]) - 5, len(part.responses[b]) - 5)))
           for part in parts for a, b in part_of(part).ties]
    assert sorted(met) == ties_of(ranking)
    whole, split = make_batch([[tree]], 100), make_batch([[part] for part in parts], 26)
    for batch in (whole, split):
        add_pairs(batch)
    assert whole.counts["pairs"] == split.counts["pairs"] == 11 and int(split.extra["tied"].sum()) == 4
    assert [split.counts["trees"], float(split.extra["pair_weights"].sum())] == pytest.approx([1.0, 1.0])


def test_a_ranked_tree_carries_its_ties_and_its_ratings(school):
    row = {"prompt": [{"role": "user", "content": "say 1"}], "responses": RESPONSES, "ranking": [[2], [0, 1]],
           "ratings": [3, 3, 6]}
    part = part_of(ranked_tree(ChatTokenizer.load(school / "sft"), row, rated=True, tied=True))
    assert part.pairs == ((2, 0), (2, 1), (0, 1)) and part.ties == ((0, 1),) and part.ratings == (3, 3, 6)


@pytest.mark.parametrize("given, message", [
    ({"tie_strength": 2.0}, "ranking learns nothing from ties; leave it out, or take the loss rao_kupper or davidson"),
    ({"loss": "rao_kupper", "tie_strength": 1.0}, "1 is not above 1, where nothing is tied"),
    ({"loss": "davidsen"}, "did you mean 'davidson'")])
def test_settings_of_ties_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        Reward(**given)


def test_the_strength_of_ties_is_in_the_key_where_it_is_given():
    assert "tie_strength" not in Reward().learned() and "tie_strength" not in Reward(loss="davidson").learned()
    assert Reward(loss="davidson", tie_strength=1.0).learned()["tie_strength"] == 1.0
