"""Several processes against one: real gloo processes on the CPU, started by torchrun."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_loop import CONFIG, trees

from trivium.model import LanguageModel
from trivium.stages.pretraining.pretrain import LanguageModeling
from trivium.training.batch import make_batch
from trivium.training.optimizers import Optimization
from trivium.training.parallel import World, mesh_of
from trivium.training.trainer import Trainer

HERE = Path(__file__).parent
WORKER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from test_loop import trees
from safetensors.torch import save_file
from trivium.model import LanguageModel, ModelConfig
from trivium.model.config import EncoderDecoderConfig
from trivium.model.encoder_decoder import EncoderDecoder
from trivium.training.epochs import PackedEpochs
from trivium.stages.pretraining.spans import PairEpochs, WritingTargets
from trivium.stages.pretraining.pretrain import LanguageModeling
from trivium.training.batch import Tree
from trivium.training.loop import Evaluation, train
from trivium.training.machine import prepare
from trivium.training.optimizers import Optimization
from trivium.training.parallel import Parallel
prepare(1)
folder, options = Path(sys.argv[1]), json.loads(sys.argv[3])
kind, config, objective = ((EncoderDecoder, EncoderDecoderConfig, WritingTargets()) if "pairs" in options else
                           (LanguageModel, ModelConfig, LanguageModeling()))
config = config(vocab_size=50, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2,
                head_dim=8, **options.get("model", {}))
backwards = lambda tree, epoch: Tree(tree.responses[0][::-1].copy(), tree.responses)
batches = (PairEpochs(trees(300), 64, 8, 1, end=0, change=backwards) if "pairs" in options else
           PackedEpochs(trees(300), 64, 8, 1))
outcome = train(kind(config).initialise(0), objective, batches, options.get("steps", 12),
                Optimization(**options.get("optimization", {"optimizer": "muon"})), scratch=folder / "scratch",
                log=folder / "log.jsonl", fingerprint="same",
                precision=options.get("precision", "float32"), parallel=Parallel(**options.get("parallel", {})),
                evaluation=Evaluation(5, lambda part, parts: batches(3, part, parts), lambda model: str(
                    model(torch.arange(20)[None]).argmax(-1).tolist())) if "evaluate" in options else Evaluation())
if outcome.leader:
    weights = {name: p.detach().contiguous() for name, p in outcome.model.named_parameters()}
    save_file(weights, folder / "final.safetensors")
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


def start(folder, processes, every_step=False, script=WORKER, **options):
    folder.mkdir(exist_ok=True)
    place = folder / "worker.py"
    place.write_text(script)
    words = [str(place), str(folder), str(HERE), json.dumps(options)]
    launcher = [sys.executable] if processes == 1 else [sys.executable, "-m", "torch.distributed.run", "--standalone",
                                                        f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"TRIVIUM_SAVE_EVERY_STEP": "1"} if every_step else {})
    return subprocess.Popen([*launcher, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, start_new_session=True)


def end(process):
    """Kill a launcher and the workers that it started, at once."""
    workers = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True,
                             check=False).stdout.split()
    for number in (process.pid, *map(int, workers)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.communicate()


def finish(process):
    try:
        output, _ = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        end(process)
        raise
    assert process.returncode == 0, output[-3000:]
    return output


def go(folder, processes, **options):
    finish(start(folder, processes, **options))
    return losses(folder), load_file(folder / "final.safetensors")


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder):
    return [line["loss"] for line in lines(folder) if "loss" in line]


@pytest.fixture(scope="module")
def runs_alone(tmp_path_factory):
    """By number format: the losses, weights and log of one process, made when they are first wanted."""
    made = {}

    def alone(precision):
        if precision not in made:
            folder = tmp_path_factory.mktemp("alone")
            made[precision] = *go(folder, 1, evaluate=True, precision=precision), lines(folder)
        return made[precision]
    return alone


@pytest.fixture
def alone(runs_alone):
    return runs_alone("float32")


@pytest.fixture(scope="module")
def pairs_alone(tmp_path_factory):
    return go(tmp_path_factory.mktemp("pairs"), 1, pairs=True, steps=6)


@pytest.mark.parametrize(("processes", "options"), [
    pytest.param(4, {"parallel": {"tensor_parallel": 2, "rows": 2, "checkpoint_activations": True}},
                 marks=pytest.mark.long),
    pytest.param(2, {}, marks=pytest.mark.long),
    pytest.param(4, {}, marks=pytest.mark.long),
    pytest.param(2, {"parallel": {"tensor_parallel": 2}}, marks=pytest.mark.long),
    pytest.param(2, {"parallel": {"checkpoint_activations": True}}, marks=pytest.mark.long),
])
def test_more_processes_learn_the_same(tmp_path, alone, processes, options):
    found, weights = go(tmp_path / "run", processes, **options)
    assert found == pytest.approx(alone[0], abs=1e-5)
    for name, value in alone[1].items():
        torch.testing.assert_close(weights[name], value, atol=2e-3, rtol=0)


@pytest.mark.parametrize("any_precision", [
    "float32", pytest.param("bf16", marks=pytest.mark.bf16),
    pytest.param("bf16-weights", marks=[pytest.mark.bf16, pytest.mark.long])
])
def test_an_evaluation_changes_neither_what_is_learned_nor_its_format(tmp_path, runs_alone, any_precision):
    """Each is followed by a sample and a checkpoint, for which the weights must be spread again, in float32."""
    there, exact = runs_alone(any_precision), any_precision == "float32"
    found, weights = go(tmp_path, 2, every_step=True, parallel={"rows": 1}, evaluate=True, precision=any_precision)
    assert found == pytest.approx(there[0], abs=1e-5 if exact else 2e-3 if any_precision == "bf16" else 0.02)
    saved = [
        tensor for part in (0, 1)
        for tensor in load_file(tmp_path / f"scratch/step-00000012.{part}.safetensors").values()
    ]
    assert {tensor.dtype for tensor in (*weights.values(), *saved)} == {torch.float32}
    for name, value in there[1].items():
        torch.testing.assert_close(weights[name], value, atol=2e-3 if exact else 0.1, rtol=0)
    here, there = ([line for line in each if "sample" in line or "validation_loss" in line]
                   for each in (lines(tmp_path), there[2]))
    assert [line["step"] for line in here] == [4, 4, 9, 9, 11, 11]
    assert [line.get("validation_loss", 0.0)
            for line in here] == pytest.approx([line.get("validation_loss", 0.0) for line in there],
                                               abs=1e-5 if exact else 0.02)
    if exact:
        assert [line.get("sample") for line in here] == [line.get("sample") for line in there]


def test_gradients_travel_after_the_last_microbatch_alone():
    """Counted in one of two processes, the other of which PyTorch makes up."""
    import torch.distributed as dist
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        travelled = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.travelled += "reduce_scatter" in str(function)
            return function(*args, **(kwargs or {}))

    batch = make_batch([[tree] for tree in trees(4)], 32)
    counted = []
    dist.init_process_group("fake", rank=0, world_size=2)
    try:
        for microbatches in (1, 3):
            trainer = Trainer(
                LanguageModel(CONFIG).initialise(0), Optimization(), 10, world=World(0, 2, mesh_of("cpu", 2, 1)))
            with Counting() as seen:
                trainer.step(0, [batch] * microbatches, LanguageModeling())
            counted.append(seen.travelled)
    finally:
        dist.destroy_process_group()
    assert counted == [CONFIG.num_layers + 1] * 2  # each block's, and those of the embedding and the last norm


@pytest.mark.long
@pytest.mark.bf16
@pytest.mark.parametrize("kind", ["bf16", "bf16-weights"])
def test_matrices_are_cut_in_every_format(tmp_path, runs_alone, kind):
    found, weights = go(tmp_path, 2, parallel={"tensor_parallel": 2, "checkpoint_activations": True}, evaluate=True,
                        precision=kind)
    assert found == pytest.approx(runs_alone(kind)[0], abs=0.02)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


@pytest.mark.long
def test_other_families_are_cut_too(tmp_path):
    options = {"model": {"qk_norm": False, "attention_bias": True, "tie_embeddings": False}, "optimization": {}}
    found, _ = go(tmp_path / "one", 1, **options)
    cut, _ = go(tmp_path / "two", 2, parallel={"tensor_parallel": 2}, **options)
    assert cut == pytest.approx(found, abs=1e-5)


@pytest.mark.long
@pytest.mark.bf16
def test_bf16_weights_are_spread_as_float32_masters(tmp_path):
    """Two processes learn what one does, within bf16, and one goes on from their checkpoint."""
    options = {"precision": "bf16-weights", "parallel": {"rows": 2}}
    one, _ = go(tmp_path / "one", 1, **options)
    two, weights = go(tmp_path / "two", 2, every_step=True, **options)
    assert two == pytest.approx(one, abs=0.02) and all(weight.dtype == torch.float32 for weight in weights.values())
    assert two != one  # so they did not compute the same thing by the same way
    on, _ = go(tmp_path / "two", 1, **options, steps=16)
    assert len(on) == 16 and on[:12] == two and np.mean(on[12:]) < np.mean(on[:4])


@pytest.mark.long
@pytest.mark.parametrize("parallel",
                         [{"rows": 2}, {"tensor_parallel": 2}, {"checkpoint_activations": True}, {"compile": "always"}])
def test_encoder_decoders_too(tmp_path, pairs_alone, parallel):
    found, weights = pairs_alone
    cut, same = go(tmp_path / "two", 1 if "compile" in parallel else 2, pairs=True, steps=6, parallel=parallel)
    assert cut == pytest.approx(found, abs=1e-4)
    for name, value in weights.items():
        torch.testing.assert_close(same[name], value, atol=2e-3, rtol=0)


@pytest.mark.parametrize("killed", [[(2, 5)], pytest.param([(4, 3), (2, 7)], marks=pytest.mark.long)])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, alone, killed):
    """Killed with so many processes at a step, once or twice, and ended with 1."""
    folder = tmp_path / "run"
    for processes, until in killed:
        process = start(folder, processes, every_step=True)
        deadline = time.monotonic() + 100
        while not (folder / "scratch" / f"step-{until:08d}.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        end(process)
        assert process.returncode == -9
    found, weights = go(folder, 1)
    assert found == pytest.approx(alone[0], abs=1e-5)
    for name, value in alone[1].items():
        torch.testing.assert_close(weights[name], value, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("processes", "options", "message"), [
    (2, {"parallel": {"tensor_parallel": 3}}, "does not divide 2 processes"),
    pytest.param(4, {"parallel": {"tensor_parallel": 4}}, "does not divide the model's 2 kv_heads",
                 marks=pytest.mark.long),
])
def test_what_cannot_be_shared_out_is_said(tmp_path, processes, options, message):
    process = start(tmp_path / "run", processes, **options)
    output, _ = process.communicate(timeout=100)
    assert process.returncode != 0 and message in output
