"""The training loop: accumulation, optimizers, and going on after a kill."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from trivium.errors import TriviumError
from trivium.files import written_aside
from trivium.model import LanguageModel, ModelConfig
from trivium.stages.pretraining.pretrain import LanguageModeling, pieces, unigram_bits_per_byte
from trivium.tokenizer.tokens import Tokens
from trivium.training import checkpoint, loop
from trivium.training.batch import Tree, make_batch
from trivium.training.epochs import PackedEpochs
from trivium.training.loop import Evaluation, train, worth_compiling
from trivium.training.optimizers import (
    TWO_QUINTICS,
    Muon,
    Optimization,
    Plateau,
    factor,
    make_optimizers,
    orthogonalise,
)
from trivium.training.parallel import Parallel
from trivium.training.trackers import Tracking
from trivium.training.trainer import Trainer, added

CONFIG = ModelConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1,
                     head_dim=16)


def trees(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return [Tree(np.array([0]), (rng.integers(1, 9, rng.integers(3, 30)),)) for _ in range(count)]


def test_accumulated_microbatches_equal_one_batch(any_precision):
    exact = any_precision == "float32"
    rows = [[tree] for tree in trees(8)]
    models = []
    for split in ([rows], [rows[:3], rows[3:4], rows[4:]]):
        model = LanguageModel(CONFIG).initialise(0)
        trainer = Trainer(model, Optimization(optimizer="muon"), 10, any_precision)
        metrics = trainer.step(0, [make_batch(part, 32) for part in split], LanguageModeling())
        models.append((trainer.gathered(), metrics))
    assert models[0][1]["loss"] == pytest.approx(models[1][1]["loss"], abs=1e-5 if exact else 2e-3)
    assert models[0][1]["gradient_norm"] == pytest.approx(models[1][1]["gradient_norm"], rel=1e-4 if exact else 5e-3)
    for a, b in zip(models[0][0].parameters(), models[1][0].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3 if exact else 2e-2, rtol=0)


def test_a_long_gradient_is_cut_to_its_highest_norm():
    """Plain gradient descent moves the weights by the learning rate times the gradient that is left."""
    steps = {}
    for clip in (0.0, 0.1, 1e6):
        model = LanguageModel(CONFIG).initialise(0)
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        metrics = Trainer(model,
                          Optimization(optimizer="sgd", learning_rate=0.5, schedule="constant", warmup=0.0, clip=clip),
                          10).step(0, [make_batch([[tree] for tree in trees(4)], 32)], LanguageModeling())
        steps[clip] = (before - torch.cat([p.detach().flatten() for p in model.parameters()])) / 0.5
    norm = metrics["gradient_norm"]
    assert norm > 0.5  # so there is something to cut, and what is reported is the norm before
    assert [step.norm().item() for step in steps.values()] == pytest.approx([norm, 0.1, norm], rel=1e-3)
    torch.testing.assert_close(steps[0.1] * (norm / 0.1), steps[0.0], atol=1e-3, rtol=0)


def test_checkpointed_activations_keep_less_and_give_the_same_gradient():
    kept, gradients = [], []
    for again in (False, True):
        model = LanguageModel(CONFIG).initialise(0)
        trainer = Trainer(model, Optimization(), 10, parallel=Parallel(checkpoint_activations=again))
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.nbytes) or x, lambda x: x):
            totals = trainer.learner(LanguageModeling(), make_batch([[tree] for tree in trees(8)], 32))
        totals["loss"].value.backward()
        kept.append(sum(sizes))
        gradients.append([p.grad for p in model.parameters()])
    assert kept[1] < kept[0] / 2
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_gradient_that_is_not_finite_changes_nothing():
    class Broken(LanguageModeling):
        def __call__(self, model, batch):
            return {k: v._replace(value=v.value * math.nan) for k, v in super().__call__(model, batch).items()}
    model = LanguageModel(CONFIG).initialise(0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    metrics = Trainer(model, Optimization(), 10).step(0, [make_batch([[tree] for tree in trees(4)], 32)], Broken())
    assert metrics["skipped"] == 1.0
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_training_stops_when_nothing_is_finite(tmp_path):
    class Broken(LanguageModeling):
        def __call__(self, model, batch):
            return {k: v._replace(value=v.value * math.nan) for k, v in super().__call__(model, batch).items()}
    batches = PackedEpochs(trees(), 32, 2, 0)
    with pytest.raises(TriviumError, match="not finite"):
        train(
            LanguageModel(CONFIG).initialise(0), Broken(), batches, 30, Optimization(), scratch=tmp_path,
            log=tmp_path / "log.jsonl", fingerprint="x")


def mark_of(batch):
    """A number that tells a batch from others."""
    return float((batch.tokens.flatten() * torch.arange(batch.size).sqrt()).sum())


class BrokenOnce(LanguageModeling):
    """No finite loss for the batches of some steps, as long as the rate is the one set."""

    def __init__(self, wanted, times):
        self.left = dict.fromkeys(wanted, times)
        self.step = 0

    def __call__(self, model, batch):
        totals = super().__call__(model, batch)
        mark = mark_of(batch)
        if self.left.get(mark, 0) > 0:
            self.left[mark] -= 1
            return {k: v._replace(value=v.value * math.inf) for k, v in totals.items()}
        return totals


def test_it_goes_back_to_the_last_checkpoint_and_on_more_slowly(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "ANCHOR", 4)
    batches = PackedEpochs(trees(), 32, 2, 0)
    bad = [mark_of(batches(step)[0]) for step in (5, 6, 7)]
    said = []
    outcome = train(
        LanguageModel(CONFIG).initialise(0), BrokenOnce(bad, 1), batches, 12,
        Optimization(schedule="constant", warmup=0.0), scratch=tmp_path, log=tmp_path / "log.jsonl", fingerprint="x",
        say=said.append)
    assert any("step 5: the gradient is not finite" in text for text in said)
    assert any("going back to step 4, and on at 0.5" in text for text in said)
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([3e-4] * 4 + [1.5e-4] * 8) and math.isfinite(outcome.metrics["loss"])


def test_where_it_goes_back_to_does_not_depend_on_when_it_saved(tmp_path, monkeypatch):
    """The same run with a checkpoint after every step and with none but the anchors."""
    monkeypatch.setattr(loop, "ANCHOR", 4)
    batches = PackedEpochs(trees(), 32, 2, 0)
    bad = [mark_of(batches(step)[0]) for step in (5, 6, 7)]
    models = []
    for often in (False, True):
        if often:
            monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
        folder = tmp_path / str(often)
        folder.mkdir()
        models.append(
            train(
                LanguageModel(CONFIG).initialise(0), BrokenOnce(bad, 1), batches, 12, Optimization(), scratch=folder,
                log=folder / "log.jsonl", fingerprint="x").model)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_a_single_bad_batch_is_left_out(tmp_path):
    batches = PackedEpochs(trees(), 32, 2, 0)
    outcome = train(
        LanguageModel(CONFIG).initialise(0), BrokenOnce([mark_of(batches(4)[0])], 9), batches, 8,
        Optimization(), scratch=tmp_path, log=tmp_path / "log.jsonl", fingerprint="x")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "skipped" in line] == [4] and math.isfinite(outcome.metrics["loss"])


def test_held_out_loss_and_samples_are_written_along_the_way(tmp_path):
    batches = PackedEpochs(trees(), 32, 2, 0)
    train(LanguageModel(CONFIG).initialise(0), LanguageModeling(), batches, 8, Optimization(), scratch=tmp_path,
          log=tmp_path / "log.jsonl", fingerprint="x",
          track=Tracking(["tensorboard"], folder=tmp_path / "tensorboard"),
          evaluation=Evaluation(3, lambda part, parts: batches(0, part, parts), lambda model: "spoken"))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 5, 7]
    assert [line["step"] for line in lines if line.get("sample") == "spoken"] == [2, 5, 7]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert len(events.Scalars("loss")) == 8 and len(events.Scalars("validation_loss")) == 3


def test_microbatches_and_slices_hold_each_row_once():
    batches = PackedEpochs(trees(90), 32, 6, 3)
    for step in (0, 1, batches.steps_per_epoch - 1):
        whole = sorted(tuple(t.responses[0].tolist()) for t in batches(step)[0].trees)
        for parts, rows in ((1, 2), (2, None), (4, 1), (6, None)):
            slices = [batches(step, part, parts, rows) for part in range(parts)]
            assert len({len(each) for each in slices}) == 1
            assert sorted(tuple(t.responses[0].tolist()) for each in slices for b in each for t in b.trees) == whole
    with pytest.raises(TriviumError, match="6 rows cannot be shared by 7"):
        batches(0, 0, 7)


def test_compiling_is_decided_by_the_amount_of_work(monkeypatch):
    model = LanguageModel(CONFIG)
    assert not worth_compiling(Parallel(), model, 100, 1000, "float32")
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/g++")
    assert worth_compiling(Parallel(), model, 10**9, 1000, "float32")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not worth_compiling(Parallel(), model, 10**9, 1000, "float32")
    assert worth_compiling(Parallel(compile="always"), model, 1, 1, "float32")


def test_documents_fill_their_rows():
    rng = np.random.default_rng(0)
    documents = [
        Tree(np.array([0]), (rng.integers(1, 9, int(n)),)) for n in np.clip(rng.lognormal(4.6, 0.6, 3000), 10, 900)
    ]
    batches = PackedEpochs(documents, 1024, 8, 0)
    tokens = sum(map(len, documents))
    rows = batches.rows_per_epoch
    assert tokens / (rows * 1024) > 0.99


def test_the_unigram_model_is_what_counting_by_hand_gives():
    corpus, heldout = (Tokens(Path(), {}, np.array(tokens, np.uint16), np.array([0, len(tokens)]))
                       for tokens in ([1, 1, 2, 5, 1, 7], [1, 5, 5, 9, 2]))
    counts, total = Counter(corpus.tokens.tolist()), 6 + len({1, 2, 5, 7, 9})
    wanted = -sum(math.log2((counts[token] + 1) / total) for token in heldout.tokens.tolist()) / 11
    for first, second in ((corpus, heldout), (heldout, heldout), (heldout, corpus)):
        assert unigram_bits_per_byte(first, second, 11) > 0
    assert unigram_bits_per_byte(corpus, heldout, 11) == pytest.approx(wanted, rel=1e-12)


def test_documents_stay_whole_where_they_fit_and_lose_nothing_where_they_do_not():
    documents = [np.arange(1, n + 1) for n in (1, 10, 31, 32, 100)]
    offsets = np.cumsum([0, *map(len, documents)])
    corpus = Tokens(Path(), {}, np.concatenate(documents), offsets)
    found = pieces(corpus, SimpleNamespace(document_id=0), 32)
    assert found.sizes.tolist() == [len(piece) for piece in found]
    assert len(found[1:3]) == 2 and len(found[-1]) == found.sizes[-1]
    assert all(len(piece) <= 32 and piece.prompt.tolist() == [0] for piece in found)
    parts = iter(piece.responses[0].tolist() for piece in found)
    for document, count in zip(documents, (1, 1, 1, 2, 4), strict=True):
        assert [token for _ in range(count) for token in next(parts)] == document.tolist()
    assert next(parts, None) is None


def test_orthogonalised_matrices_have_singular_values_near_one():
    for shape in ((3, 20, 50), (2, 50, 20), (1, 16, 16)):
        x = orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        values = torch.linalg.svdvals(x)
        assert values.max() < 1.3 and values.median() > 0.6


def test_two_steps_have_polynomials_of_their_own():
    """On the range they are made for they end within 0.38 of 1, as their derivation says; the singular vectors stay."""
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((20, 50), (50, 20), (16, 16)):
        left, _, right = torch.linalg.svd(torch.randn(rows, columns, generator=generator, dtype=torch.float64),
                                          full_matrices=False)
        values = torch.logspace(0, -1.4, min(rows, columns), dtype=torch.float64)
        values = values / values.pow(4).sum() ** 0.25  # so that they are what the iteration begins from: 0.031 and more
        x = 7.0 * (left * values) @ right
        found = left.mT @ orthogonalise(x[None], 2)[0] @ right.mT
        assert (found.diagonal() - 1).abs().max() < 0.381
        assert (found - torch.diag(found.diagonal())).abs().max() < 1e-10


def test_the_two_polynomials_are_the_nearest_to_one():
    """Found anew, as linear programmes: the least t with |1 - p(x)| <= t on a grid."""
    low, high = 0.03, 1.0
    for polynomial in TWO_QUINTICS:
        x = np.linspace(low, high, 4000)
        powers, t = np.stack([x, x**3, x**5], 1), np.ones((len(x), 1))
        found = linprog([0, 0, 0, 1], A_ub=np.block([[powers, -t], [-powers, -t]]),
                        b_ub=np.concatenate([t[:, 0], -t[:, 0]]), bounds=(None, None)).x
        assert polynomial == pytest.approx(found[:3], abs=1e-3)
        low, high = 1 - found[3], 1 + found[3]


def test_muon_agrees_with_torch_within_bf16():
    weight, gradient = torch.randn(24, 40), torch.randn(24, 40)
    ours, theirs = (torch.nn.Parameter(weight.clone()) for _ in range(2))
    a = Muon([ours], lr=0.1)
    b = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0, momentum=0.95, nesterov=True)
    for _ in range(2):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        a.step()
        b.step()
    assert torch.nn.functional.cosine_similarity((ours - weight).flatten(), (theirs - weight).flatten(), dim=0) > 0.99


def test_every_parameter_has_one_optimizer():
    model = LanguageModel(CONFIG).initialise(0)
    for kind in ("muon", "adamw"):
        optimizers = make_optimizers(model, Optimization(optimizer=kind))
        grouped = [p for o in optimizers for g in o.param_groups for p in g["params"]]
        assert len({id(p) for p in grouped}) == len(grouped) == len(list(model.parameters()))


def test_schedules_rise_and_fall():
    for kind, last in (("constant", 1.0), ("linear", 0.05), ("cosine", 0.05)):
        values = [factor(Optimization(schedule=kind, warmup=0.1, final=0.05), n, 100) for n in range(100)]
        assert values[0] == pytest.approx(0.1) and max(values) == 1.0 and values[-1] == pytest.approx(last, abs=0.03)


@pytest.mark.parametrize(("name", "value"), [("warmup", 5), ("newton_schulz", 0), ("learning_rate", -1.0),
                                             ("patience", 0)])
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(TriviumError, match=f"{name} is {value}"):
        Optimization(**{name: value})


def test_wsd_holds_and_then_falls():
    settings = Optimization(schedule="wsd", warmup=0.1, decay=0.25, final=0.0)
    values = [factor(settings, n, 100) for n in range(100)]
    assert set(values[10:76]) == {1.0} and values[76] < 1.0 and values[99] == pytest.approx(0.04)


def test_plateau_halves_when_the_loss_stops_falling():
    plateau = Plateau(Optimization(schedule="plateau", patience=3))
    shares = []
    for loss in (5, 5, 5, 4, 4, 4, 4, 4, 4, 3, 3, 3, 6, 6, 6):
        plateau(loss)
        shares.append(plateau.share)
    assert shares == [1] * 8 + [0.5] * 6 + [0.25]
    off = Plateau(Optimization(schedule="cosine"))
    for _ in range(500):
        off(1.0)
    assert off.share == 1.0


def test_batches_depend_on_the_step_alone():
    straight = PackedEpochs(trees(), 32, 2, 7)
    seen = [straight(n)[0].tokens for n in range(30)]
    jumping = PackedEpochs(trees(), 32, 2, 7)
    for n in (29, 3, 17, 3, 0):
        assert torch.equal(jumping(n)[0].tokens, seen[n])
    first = {tuple(t.responses[0].tolist()) for n in range(straight.steps_per_epoch) for t in straight(n)[0].trees}
    assert first == {tuple(t.responses[0].tolist()) for t in trees()}


SCRIPT = """
import sys, pathlib, hashlib
sys.path.insert(0, sys.argv[2])
from test_loop import CONFIG, trees
from trivium.model import LanguageModel
from trivium.training.epochs import PackedEpochs
from trivium.stages.pretraining.pretrain import LanguageModeling
from trivium.training.loop import train
from trivium.training.machine import prepare
from trivium.training.optimizers import Optimization
prepare(1)
folder = pathlib.Path(sys.argv[1])
if len(sys.argv) > 3:  # die with half of this checkpoint written
    import os
    from trivium.training import checkpoint
    whole = checkpoint.write_tensors
    def half(path, parts):
        digest = whole(path, parts)
        if sys.argv[3] in path.name:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), 9)
        return digest
    checkpoint.write_tensors = half
model = LanguageModel(CONFIG).initialise(0)
train(model, LanguageModeling(), PackedEpochs(trees(400), 64, 4, 1), 36, Optimization(optimizer="muon"), scratch=folder,
      log=folder / "log.jsonl", fingerprint="same")
digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
(folder / "digest").write_text(digest)
"""


def launch(folder, *torn):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), os.path.dirname(__file__), *torn],
                            env=os.environ | {"TRIVIUM_SAVE_EVERY_STEP": "1"})


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(tmp_path):
    assert launch(tmp_path / "undisturbed").wait(180) == 0
    assert launch(tmp_path / "killed", "step-00000015").wait(180) == -signal.SIGKILL
    assert (tmp_path / "killed" /
            "step-00000014.json").exists() and not (tmp_path / "killed" / "step-00000015.json").exists()
    kills, wanted = 1, [22, 29]
    while not (tmp_path / "killed" / "digest").exists():
        process = launch(tmp_path / "killed")
        if wanted:
            target = tmp_path / "killed" / f"step-{wanted.pop(0):08d}.json"
            deadline = time.monotonic() + 60
            while process.poll() is None and not target.exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        else:
            assert process.wait(180) == 0
    assert kills >= 2
    assert (tmp_path / "killed" / "digest").read_text() == (tmp_path / "undisturbed" / "digest").read_text()
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(36))


def test_killed_before_its_first_line_it_measures_what_was_there_before_again(tmp_path, precision):
    batches = PackedEpochs(trees(), 32, 2, 0)

    def go(folder, heldout):
        (tmp_path / folder).mkdir(exist_ok=True)
        train(LanguageModel(CONFIG).initialise(0), LanguageModeling(), batches, 2, Optimization(), fingerprint="x",
              scratch=tmp_path / folder, log=tmp_path / folder / "log.jsonl", precision=precision,
              evaluation=Evaluation(2, heldout))
        return [json.loads(line) for line in (tmp_path / folder / "log.jsonl").read_text().splitlines()]

    def killed(part, parts):
        raise KeyboardInterrupt

    whole = go("whole", lambda part, parts: batches(0, part, parts))
    with pytest.raises(KeyboardInterrupt):
        go("killed", killed)
    assert (tmp_path / "killed/step-00000000.json").exists()
    again = go("killed", lambda part, parts: batches(0, part, parts))
    assert again[0]["validation_loss_before"] == whole[0]["validation_loss_before"] > 0
    assert "validation_loss_before" not in again[1]


def test_a_disk_that_fills_up_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
    batches = PackedEpochs(trees(), 32, 2, 0)

    def go(folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        return train(
            LanguageModel(CONFIG).initialise(0), LanguageModeling(), batches, 8, Optimization(),
            scratch=tmp_path / folder, log=tmp_path / folder / "log.jsonl", fingerprint="x").model

    def full(path, parts):
        if "step-00000005" in path.name:
            with written_aside(path) as aside:
                aside.write_bytes(b"some of it")
                raise OSError(errno.ENOSPC, "No space left on device")
        return write_tensors(path, parts)

    write_tensors = checkpoint.write_tensors
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_tensors", full)
        with pytest.raises(TriviumError, match="step-00000005.*the disk is full"):
            go("full")
    assert not list((tmp_path / "full").glob(".*"))
    assert all(torch.equal(a, b) for a, b in zip(go("full").parameters(), go("undisturbed").parameters(), strict=True))


def test_too_little_room_for_checkpoints_is_said_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=50_000))
    with pytest.raises(
            TriviumError,
            match=r"too little room for this run's checkpoints: they need up to 0.000825 GB, 5e-05 GB are free"):
        train(
            LanguageModel(CONFIG).initialise(0), LanguageModeling(), PackedEpochs(trees(), 32, 2, 0), 8,
            Optimization(), scratch=tmp_path, log=tmp_path / "log.jsonl", fingerprint="x")


def test_a_torn_checkpoint_falls_back_and_a_foreign_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
    batches = PackedEpochs(trees(), 32, 2, 0)

    def go(steps, mark="mine", **more):
        model = LanguageModel(CONFIG).initialise(0)
        train(model, LanguageModeling(), batches, steps, Optimization(schedule="constant", warmup=0.0),
              scratch=tmp_path, log=tmp_path / "log.jsonl", fingerprint=mark, **more)
        return model

    go(6)
    newest = tmp_path / "step-00000006.0.safetensors"
    newest.write_bytes(newest.read_bytes()[:-50])
    torn = go(8)
    for path in tmp_path.glob("step-*"):
        path.unlink()
    whole = go(8)
    assert all(torch.equal(a, b) for a, b in zip(torn.parameters(), whole.parameters(), strict=True))
    with pytest.raises(TriviumError, match="other data or settings"):
        go(8, "another")
    with pytest.raises(TriviumError, match="another number format"):
        go(8, precision="bf16")


def test_a_run_that_goes_on_says_from_where(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
    for expected in (False, True):
        said: list[str] = []
        train(
            LanguageModel(CONFIG).initialise(0), LanguageModeling(), PackedEpochs(trees(), 64, 4, 1), 3,
            Optimization(), scratch=tmp_path, log=tmp_path / "log.jsonl", fingerprint="same", say=said.append)
        assert ("goes on from its last checkpoint, after 3 of 3 updates" in said) is expected


LION = """
import torch

class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr, beta=0.9, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "beta": beta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                    direction = torch.sign(mean.lerp(p.grad, 0.1))
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])
                    mean.lerp_(p.grad, 1 - group["beta"])

def forgetful(params, lr):
    optimizer = Lion(params, lr)
    step = optimizer.step
    def remember():
        step()
        optimizer.state[optimizer.param_groups[0]["params"][0]]["note"] = "text"
    optimizer.step = remember
    return optimizer

def broken(params, lr):
    optimizer = Lion(params, lr)
    optimizer.step = lambda: 1 / 0
    return optimizer

def none(params, lr):
    return lr
"""


def test_an_optimizer_of_ones_own_learns_and_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lion.py").write_text(LION)
    settings = Optimization(optimizer="lion.py:Lion", learning_rate=3e-3, optimizer_options={"beta": 0.95})

    def run(folder, steps):
        return train(
            LanguageModel(CONFIG).initialise(0), LanguageModeling(), PackedEpochs(trees(), 32, 2, 0), steps, settings,
            scratch=tmp_path / folder, log=tmp_path / "log.jsonl", fingerprint="x")

    whole = run("whole", 12)
    assert whole.metrics["loss"] < 0.95 * json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["loss"]
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
    stopped = PackedEpochs(trees(), 32, 2, 0)

    def until_seven(step, *arguments):
        if step == 7:
            raise KeyboardInterrupt
        return stopped(step, *arguments)

    with pytest.raises(KeyboardInterrupt):
        train(
            LanguageModel(CONFIG).initialise(0), LanguageModeling(), until_seven, 12, settings,
            scratch=tmp_path / "cut", log=tmp_path / "log.jsonl", fingerprint="x")
    again = run("cut", 12)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))


@pytest.mark.parametrize(("settings", "message"), [
    ({"optimizer": "adamv"}, "there is no optimizer 'adamv'; did you mean 'adamw'"),
    ({"optimizer_options": {"beta": 1.0}}, "optimizer_options are for optimizers of your own, not for adamw"),
    ({"optimizer": "lion.py:none"}, "lion.py:none makes a float, where a torch.optim.Optimizer was expected"),
    ({"optimizer": "lion.py:Lion", "optimizer_options": {"betta": 1.0}
      }, "lion.py:Lion: the optimizer cannot be made: TypeError"),
    ({"optimizer": "lion.py:forgetful"}, "optimization.optimizer: lion.py:forgetful keeps a str as 'note' of a weight"),
    ({"optimizer": "lion.py:broken"}, "optimization.optimizer: lion.py:broken: its step fails: ZeroDivisionError"),
])
def test_an_optimizer_that_cannot_be_used_is_one_clear_error(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lion.py").write_text(LION)
    with pytest.raises(TriviumError, match=re.escape(message)):
        train(
            LanguageModel(CONFIG).initialise(0), LanguageModeling(), PackedEpochs(trees(), 32, 2, 0), 2,
            Optimization(**settings), scratch=tmp_path / "scratch", log=tmp_path / "log.jsonl", fingerprint="x")


def test_totals_read_at_once_are_those_read_one_by_one():
    values = torch.randn(6, generator=torch.Generator().manual_seed(0))
    found = [("ab"[i % 2], float(i + 3), value) for i, value in enumerate(values)]
    one_by_one = {"a": 0.0, "b": 0.0}
    for name, count, value in found:
        one_by_one[name] += value.item() / count
    assert added(found) == one_by_one
    assert added([]) == {}
