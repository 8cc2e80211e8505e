"""Every preference loss of the package, trained on a toy whose preferences can be learned."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

from trivium.files import write_rows
from trivium.model import LanguageModel, ModelConfig
from trivium.objectives.preference import PREFERENCE_LOSSES, find_preference_loss
from trivium.progress import Progress
from trivium.stage import Context
from trivium.stages.models import answer_tree, load_language_model, prompt_ids, response_ids, save_model
from trivium.stages.preferences.dpo import Dpo
from trivium.stages.preferences.rankings import add_pairs
from trivium.stages.preferences.reference import response_log_probs, summed_in_pairs, target_log_probs
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree, make_batch
from trivium.training.next_token import LanguageModeling
from trivium.training.optimizers import Optimization
from trivium.training.trainer import Trainer

LOSSES = [name for name, loss in PREFERENCE_LOSSES.items() if loss.file is None]
BEST_FIRST = ["it is", "no no", "yes"]
"""What is preferred to each prompt; the model that training starts from finds the last one likeliest."""


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    folder = tmp_path_factory.mktemp("school")
    tokenizer = ChatTokenizer(tokenizer_training.train(["please say it is.", "no no, yes."] * 9, 300))
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=1,
                         num_heads=2, num_kv_heads=1, head_dim=16, max_positions=128)
    policy = LanguageModel(config).initialise(0)
    trainer = Trainer(policy, Optimization(learning_rate=5e-3), 20, "float32")
    trees = [Tree(prompt_ids(tokenizer, [{"role": "user", "content": f"say {n}"}]), (response_ids(tokenizer, text),))
             for n in range(8) for text in ("yes", "yes", "yes", "no no", "it is")]
    for step in range(20):
        trainer.step(step, [make_batch([[tree] for tree in trees], 64)], LanguageModeling())
    (folder / "sft").mkdir()
    save_model(policy, tokenizer, folder / "sft")
    (folder / "ranked").mkdir()
    write_rows(folder / "ranked/comparisons.jsonl", [{
        "prompt": [{"role": "user", "content": f"say {n}"}], "responses": BEST_FIRST, "ranking": [[0], [1], [2]],
        "split": "heldout" if n % 4 == 0 else "train"} for n in range(12)])
    return folder


def run(school, folder, **given):
    folder.mkdir(parents=True)
    stage = Dpo(length=64, rows=2, **given)
    summary = stage.run(Context("r", "dpo", 0, {"model": school / "sft", "preferences": school / "ranked"}, folder,
                                folder / "scratch", Progress(quiet=True), 1))
    return summary, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def ahead(folder, mean):
    """How far, in nats, a model puts the better response of each held-out pair ahead, ``[P]``."""
    model, tokenizer = load_language_model(folder)
    rows = [{"prompt": [{"role": "user", "content": f"say {n}"}]} for n in (0, 4, 8)]
    trees = [answer_tree(tokenizer, row, BEST_FIRST, [True] * 3, [[0], [1], [2]]) for row in rows]
    batch = make_batch([[tree] for tree in trees], 64)
    add_pairs(batch)
    with torch.no_grad():
        found = response_log_probs(model, batch, mean)
    return found[batch.extra["winners"]] - found[batch.extra["losers"]]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_learns_to_order_held_out_pairs(school, tmp_path, name, precision):
    """A small beta lets pairs get as far apart as the model that it begins with orders them wrong; apo_down, which
    makes chosen responses unlikelier too, must not go so far."""
    mean, reference = find_preference_loss(name).mean, find_preference_loss(name).reference
    beta = {"apo_down": 0.3}.get(name, 0.05 if reference else None)
    summary, log = run(school, tmp_path / "a", loss=name, epochs=20, precision=precision, beta=beta,
                       optimization=Optimization(learning_rate=3e-3, schedule="constant"))
    before, after = ahead(school / "sft", mean), ahead(tmp_path / "a", mean)
    assert (before > 0).float().mean() < 0.5 < 0.9 < (after > 0).float().mean()
    assert ((after - before) > 0).all() and summary["preference_accuracy"]["value"] > 0.9
    assert summary["loss"] < log[0]["loss"]


def test_a_coefficient_adds_the_chosen_responses_negative_log_likelihood(school, tmp_path):
    _, plain = run(school, tmp_path / "a", precision="float32")
    _, with_nll = run(school, tmp_path / "b", precision="float32", nll_coefficient=0.5)
    _, without = run(school, tmp_path / "c", precision="float32", loss="cpo", nll_coefficient=0)
    _, declared = run(school, tmp_path / "d", precision="float32", loss="cpo")
    assert with_nll[0]["loss"] == pytest.approx(plain[0]["loss"] + 0.5 * with_nll[0]["nll"], rel=1e-5)
    assert declared[0]["loss"] == pytest.approx(without[0]["loss"] + declared[0]["nll"], rel=1e-5)
    assert with_nll[0]["nll"] == pytest.approx(declared[0]["nll"], rel=1e-6) and "nll" not in plain[0]
    model, tokenizer = load_language_model(school / "sft")
    trees = [answer_tree(tokenizer, {"prompt": [{"role": "user", "content": f"say {n}"}]}, BEST_FIRST)
             for n in range(12) if n % 4]
    with torch.no_grad():
        means = response_log_probs(model, make_batch([[tree] for tree in trees], 64), mean=True).view(-1, 3)
    each = -(2 * means[:, 0] + means[:, 1]) / 3  # the first is the better one of two pairs, the second of one
    assert each.min() <= declared[0]["nll"] <= each.max()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_tail_is_what_is_beyond_the_length_of_the_other_response(weight):
    trees = [Tree(torch.zeros(3).long().numpy(), tuple(torch.zeros(n).long().numpy() for n in sizes), payload=ranking)
             for sizes, ranking in (((2, 6, 3), [[1], [0, 2]]), ((4, 1), [[0], [1]]))]
    batch = make_batch([trees], 32)
    add_pairs(batch)
    tokens = -torch.rand(len(batch.targets), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b, c, d, e = tokens.split([2, 6, 3, 4, 1])
    pairs = [(b, a), (b, c), (d, e)]
    found = summed_in_pairs(tokens, batch, weight)
    for side in (0, 1):
        for value, pair in zip(found[side], pairs, strict=True):
            one, other = pair[side], pair[1 - side]
            expected = one[:len(other)].sum() + weight * one[len(other):].sum()
            torch.testing.assert_close(value, expected)


def test_no_tail_is_the_loss_without_one(school, tmp_path):
    _, plain = run(school, tmp_path / "a", precision="float32")
    run(school, tmp_path / "b", precision="float32", loss="ld_dpo", tail_weight=1.0)
    _, half = run(school, tmp_path / "c", precision="float32", loss="ld_dpo")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert half[0]["margin"] == plain[0]["margin"] == 0  # the reference is measured alike


@pytest.mark.parametrize("given, message", [
    ({"loss": "simpo", "tail_weight": 0.5}, "a tail weighs 0.5 in sums, and log-probabilities are means here"),
    ({"loss": "ld_dpo", "length_normalised": True}, "a tail weighs 0.5 in sums, and log-probabilities are means here"),
    ({"loss": "orpo", "label_smoothing": 0.1}, "orpo: it has no option 'label_smoothing'"),
    ({"loss": "bco", "loss_options": {"delta": 1}}, "bco: it has no option 'delta'"),
    ({"loss": "robust", "loss_options": {"label_smoothing": 0.7}}, "robust: `label_smoothing` is 0.7"),
    ({"nll_coefficient": -1}, "nll_coefficient"), ({"loss": "orpoo"}, "did you mean 'orpo'")])
def test_settings_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        Dpo(**given)


def test_settings_that_are_not_given_are_in_no_key():
    later = {"loss_options", "tail_weight", "nll_coefficient"}
    assert not later & set(Dpo().learned())
    assert later <= set(Dpo(loss="dpop", loss_options={"penalty": 5.0}, tail_weight=1.0, nll_coefficient=0).learned())


def test_a_loss_begins_with_its_own_beta_and_rate(school):
    places = {"model": school / "sft", "preferences": school / "ranked"}
    plain, orpo, given = (Dpo(**settings).settled(places) for settings in (
        {}, {"loss": "orpo"}, {"loss": "orpo", "beta": 0.3, "optimization": Optimization(learning_rate=1e-5)}))
    assert (plain.beta, orpo.beta, given.beta) == (0.3, 0.1, 0.3)
    assert orpo.optimization.learning_rate == pytest.approx(10 * plain.optimization.learning_rate)
    assert given.optimization.learning_rate == 1e-5


def test_target_log_probs_are_what_is_summed(school):
    """The sums in pairs and over responses are of the same numbers."""
    model, tokenizer = load_language_model(school / "sft")
    tree = answer_tree(tokenizer, {"prompt": [{"role": "user", "content": "say 1"}]}, BEST_FIRST, [True] * 3,
                       [[0], [1], [2]])
    batch = make_batch([[tree]], 64)
    add_pairs(batch)
    with torch.no_grad():
        whole = response_log_probs(model, batch)
        chosen, rejected = summed_in_pairs(target_log_probs(model, batch), batch, 1.0)
    torch.testing.assert_close(chosen, whole[batch.extra["winners"]])
    torch.testing.assert_close(rejected, whole[batch.extra["losers"]])
