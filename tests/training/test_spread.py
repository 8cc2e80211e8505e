"""What several processes need of a model before and after: copies without contents, layers to shard, adapters, and the
memory that all of it takes. Other processes are made up by PyTorch here; real ones are in stages/test_processes.py."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch
import torch.distributed as dist
from test_loop import CONFIG, trees
from transformers import AutoModelForCausalLM, GPT2Config, Olmo2Config

from trivium.errors import TriviumError
from trivium.model import LanguageModel
from trivium.model import folder as model_folder
from trivium.model.adapters import AdapterSettings, attach
from trivium.stages.pretraining.pretrain import LanguageModeling
from trivium.training.batch import hidden_states, make_batch
from trivium.training.estimate import estimate
from trivium.training.optimizers import Optimization
from trivium.training.parallel import Parallel, World, fill, foreign_layers_of, hollow, mesh_of, prepare_model
from trivium.training.trainer import Trainer


@contextlib.contextmanager
def two_processes(tensor_parallel=1):
    dist.init_process_group("fake", rank=0, world_size=2)
    try:
        yield World(0, 2, mesh_of("cpu", 2, tensor_parallel))
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def olmo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("olmo")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(Olmo2Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["ours", "foreign"])
@pytest.mark.parametrize("adapter", [None, "lora", "bottleneck", "prefix"])
def test_a_hollow_copy_filled_again_is_the_model(olmo, kind, adapter):
    """Also where weights are tied and where an adapter hooks itself in; and filling it leaves the model alone."""
    model = model_folder.load(olmo) if kind == "foreign" else LanguageModel(CONFIG).initialise(0)
    attached = attach(model, AdapterSettings(adapter, rank=2, tokens=2), 1) if adapter else None
    for _, weight in attached.parameters() if attached else ():
        weight.data.add_(0.1)
    copy = hollow(model)
    assert all(weight.is_meta for weight in copy.parameters())
    fill(copy, {name: weight.detach().clone() for name, weight in model.named_parameters()})
    assert [(n, w.requires_grad) for n, w in copy.named_parameters()] == [
        (n, w.requires_grad) for n, w in model.named_parameters()]
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        said = model.lm_head(model.model(tokens))
        assert torch.equal(copy.lm_head(copy.model(tokens)), said)
        for _, weight in attached.within(copy).parameters() if attached else copy.named_parameters():
            weight.zero_()
        assert not torch.equal(copy.lm_head(copy.model(tokens)), said)
        assert torch.equal(model.lm_head(model.model(tokens)), said)
    assert (copy.lm_head.weight is copy.model.embed_tokens.weight) == (
        model.lm_head.weight is model.model.embed_tokens.weight)


def test_every_layer_of_another_family_is_sharded_by_itself(olmo, tmp_path):
    model = model_folder.load(olmo)
    assert foreign_layers_of(model) == list(model.whole[0].model.layers)
    AutoModelForCausalLM.from_config(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=64)
                                     ).save_pretrained(tmp_path)
    gpt = model_folder.load(tmp_path)
    assert foreign_layers_of(gpt) == list(gpt.whole[0].transformer.h)
    with two_processes() as world:
        prepare_model(model, Parallel(), world, "float32", False)
        from torch.distributed.fsdp import FSDPModule
        assert all(isinstance(layer, FSDPModule) for layer in foreign_layers_of(model))


@pytest.mark.parametrize("kind", ["foreign", "lora"])
def test_what_tensor_parallelism_does_not_cut_is_refused(olmo, kind):
    model = model_folder.load(olmo) if kind == "foreign" else LanguageModel(CONFIG).initialise(0)
    if kind == "lora":
        attach(model, AdapterSettings(rank=2), 0)
    with two_processes(2) as world, pytest.raises(TriviumError, match="are not cut; leave it at 1"):
        Trainer(model, Optimization(), 1, parallel=Parallel(tensor_parallel=2), world=world)


def test_a_checkpointed_layer_attends_again_as_it_did(olmo):
    """Another batch is computed before the gradient of the first is taken."""
    found = []
    for again in (False, True):
        model = model_folder.load(olmo)
        prepare_model(model, Parallel(checkpoint_activations=again), World(), "float32", False)
        first, other = make_batch([trees(4)], 120), make_batch([trees(3, seed=1)], 120)
        loss = hidden_states(model.model, first)[first.sources].square().sum()
        hidden_states(model.model, other)
        found.append(torch.autograd.grad(loss, [w for w in model.parameters() if w is not model.lm_head.weight],
                                         allow_unused=True))
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain)


@pytest.mark.long
def test_the_memory_of_adapters_is_told_for_several_processes():
    """Of two processes each holds half of the weights and of what the optimizer keeps of them, and gathers a layer at a
    time."""
    def models():
        model = LanguageModel(dataclasses.replace(CONFIG, num_layers=6))
        attach(model, AdapterSettings(rank=4), 0)
        return model, []

    batches = [make_batch([trees(3)], 128)]
    one, two = (estimate(models, LanguageModeling(), batches, Optimization(), Parallel(), "float32", processes)
                for processes in (1, 2))
    assert two.optimizer == pytest.approx(one.optimizer / 2, rel=0.1)
    assert one.parameters / 2 < two.parameters < 0.8 * one.parameters
