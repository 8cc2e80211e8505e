"""The first update of a stage against that of TRL's trainer: the same base, rows and template, in float32."""

from __future__ import annotations

import json

import pytest
import torch
from groups import LONGEST, SAMPLES, flat, groups_of, learned, rollout_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from trivium import load, run
from trivium.objectives.preference import find_preference_loss
from trivium.stages.models import answer_tree, load_language_model
from trivium.stages.preferences.dpo import DirectPreference, Dpo
from trivium.stages.preferences.rankings import add_pairs
from trivium.stages.preferences.reference import summed, target_log_probs
from trivium.stages.reinforcement.grpo import Grpo
from trivium.training.batch import make_batch

pytestmark = pytest.mark.long

TEMPLATE = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
            "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
            "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
"""Nothing follows the token that ends a turn: TRL would learn it in pairs, where ours learn up to the end."""

ASKED = ["What floats?", "Name a colour.", "Count to three.", "What is wet?"]
CHOSEN = ["A cork floats on water.", "Green.", "One, two, three.", "Rain is."]
REJECTED = ["A stone.", "Tuesday is a colour, I think.", "Three.", "The desert."]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trl") / "base"
    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(sorted(letters))}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2)).save_pretrained(folder)
    return folder


def first_update(base, folder, kind, rows, **settings):
    """Our stage's first line of the log."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"model": str(base), "length": 256, "rows": 8, "epochs": 1, "precision": "float32",
             "optimization": {"optimizer": "adamw", "learning_rate": 1e-12, "warmup": 0}, **settings}
    (folder / "recipe.yaml").write_text(json.dumps({"name": kind, "stages": {kind: given}}))
    made = run(folder / "recipe.yaml", out=str(folder / "runs"))[kind]
    return json.loads((made.folder / "log.jsonl").read_text().splitlines()[0])


def theirs(trainer):
    trainer.train()
    return next(line for line in trainer.state.log_history if "loss" in line)


COMMON = {"max_steps": 1, "learning_rate": 1e-12, "logging_steps": 1, "save_strategy": "no", "report_to": [],
          "use_cpu": True, "bf16": False, "per_device_train_batch_size": 4, "gradient_checkpointing": False,
          "max_grad_norm": 1e9, "disable_tqdm": True}


def test_supervised_fine_tuning(base, tmp_path, agree):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    rows = [{"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": chosen},
                          {"role": "user", "content": "And?"}, {"role": "assistant", "content": rejected}]}
            for asked, chosen, rejected in zip(ASKED, CHOSEN, REJECTED, strict=True)]
    ours = first_update(base, tmp_path, "sft", rows, demonstrations=str(tmp_path / "rows.jsonl"))
    settings = SFTConfig(str(tmp_path / "out"), assistant_only_loss=True, max_length=256, **COMMON)
    line = theirs(SFTTrainer(str(base), settings, train_dataset=Dataset.from_list(rows)))
    agree("SFT: loss of the first update", "TRL SFTTrainer", abs(ours["loss"] - line["loss"]), 1e-5)
    agree("SFT: norm of the gradient", "TRL SFTTrainer", abs(ours["gradient_norm"] / line["grad_norm"] - 1), 1e-4)


PAIRS = [{"prompt": [{"role": "user", "content": asked}], "chosen": [{"role": "assistant", "content": chosen}],
          "rejected": [{"role": "assistant", "content": rejected}]}
         for asked, chosen, rejected in zip(ASKED, CHOSEN, REJECTED, strict=True)]
RANKINGS = [{"prompt": row["prompt"], "responses": [row["chosen"][0]["content"], row["rejected"][0]["content"]],
             "ranking": [[0], [1]], "split": "train"} for row in PAIRS]


EVEN = [{**row, "chosen": [{"role": "assistant", "content": f"{row['chosen'][0]['content']:.<26}"}]} for row in PAIRS]
"""Chosen responses of one length: TRL takes the likelihood of all tokens of a batch as one mean, ours takes that of
each response (Pang et al. 2024)."""


@pytest.mark.parametrize(("ours", "named"), [
    ({"loss": "sigmoid"}, {"loss_type": ["sigmoid"]}),
    ({"loss": "hinge"}, {"loss_type": ["hinge"]}),
    ({"loss": "ipo", "length_normalised": True}, {"loss_type": ["ipo"]})
], ids=["sigmoid", "hinge", "ipo"])
def test_direct_preference_optimisation(base, tmp_path, agree, ours, named, request):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    name = request.node.callspec.id
    mine = first_update(base, tmp_path, "dpo", RANKINGS, preferences=str(tmp_path / "rows.jsonl"), beta=0.3, **ours)
    settings = DPOConfig(str(tmp_path / "out"), beta=0.3, max_length=256, **named, **COMMON)
    line = theirs(DPOTrainer(str(base), args=settings, train_dataset=Dataset.from_list(PAIRS),
                             processing_class=AutoTokenizer.from_pretrained(base)))
    agree(f"DPO, {name}: loss of the first update", "TRL DPOTrainer", abs(mine["loss"] - line["loss"]), 1e-5)
    agree(f"DPO, {name}: norm of the gradient", "TRL DPOTrainer", abs(mine["gradient_norm"] / line["grad_norm"] - 1),
          1e-4)


def test_simple_preference_optimisation(base, tmp_path, agree):
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    mine = first_update(base, tmp_path, "dpo", RANKINGS, preferences=str(tmp_path / "rows.jsonl"), loss="simpo",
                        loss_options={"target_margin": 0.7})
    settings = CPOConfig(str(tmp_path / "out"), loss_type="simpo", cpo_alpha=0.0, beta=2.0, simpo_gamma=0.7,
                         max_length=256, **COMMON)
    line = theirs(CPOTrainer(str(base), args=settings, train_dataset=Dataset.from_list(PAIRS),
                             processing_class=AutoTokenizer.from_pretrained(base)))
    agree("SimPO: loss of the first update", "TRL CPOTrainer", abs(mine["loss"] - line["loss"]), 1e-5)
    agree("SimPO: norm of the gradient", "TRL CPOTrainer", abs(mine["gradient_norm"] / line["grad_norm"] - 1), 1e-4)


@pytest.fixture(scope="module")
def beside(base, tmp_path_factory):
    """The base with other weights near its own: a reference that margins are not 0 from."""
    folder = tmp_path_factory.mktemp("trl") / "beside"
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder


def loss_and_gradient(base, reference, pairs, **given):
    """Our loss of all pairs as one batch, what is logged beside it, and the norm of the gradient."""
    settings = Dpo(**given)
    model, tokenizer = load_language_model(base)
    other, _ = load_language_model(reference)
    trees = [answer_tree(tokenizer, {"prompt": row["prompt"]}, [row["chosen"][0], row["rejected"][0]], [True] * 2,
                         [[0], [1]]) for row in pairs]
    batch = make_batch([trees], 1024)
    add_pairs(batch)
    with torch.no_grad():
        tokens = target_log_probs(other, batch)
        batch.extra |= {"reference": summed(tokens, batch.owners, len(batch.ends), settings.mean),
                        "reference_tokens": tokens}
    totals = DirectPreference(settings)(model, batch)
    found = {name: total.value / len(pairs) for name, total in totals.items()}
    found["loss"].backward()
    squares = [weight.grad.square().sum() for weight in model.parameters() if weight.grad is not None]
    return {name: float(value.detach()) for name, value in found.items()} | {"grad_norm": float(sum(squares)) ** 0.5}


@pytest.mark.parametrize(("ours", "named"), [
    ({"loss": "sigmoid"}, {"loss_type": ["sigmoid"]}),
    ({"loss": "robust"}, {"loss_type": ["robust"], "label_smoothing": 0.1}),
    ({"loss": "hinge"}, {"loss_type": ["hinge"]}),
    ({"loss": "ipo", "length_normalised": True}, {"loss_type": ["ipo"]}),
    ({"loss": "sigmoid", "length_normalised": True}, {"loss_type": ["sigmoid_norm"]}),
    ({"loss": "bco"}, {"loss_type": ["bco_pair"]}),
    ({"loss": "nca"}, {"loss_type": ["nca_pair"]}),
    ({"loss": "sppo"}, {"loss_type": ["sppo_hard"]}),
    ({"loss": "exo"}, {"loss_type": ["exo_pair"], "label_smoothing": 1e-3}),
    ({"loss": "apo_zero"}, {"loss_type": ["apo_zero"]}),
    ({"loss": "apo_down"}, {"loss_type": ["apo_down"]}),
    ({"loss": "ld_dpo"}, {"loss_type": ["sigmoid"], "ld_alpha": 0.5}),
    ({"loss": "apo_zero", "tail_weight": 0.2}, {"loss_type": ["apo_zero"], "ld_alpha": 0.2}),
    ({"loss": "dpo_nll"}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]}),
], ids=lambda given: " ".join(map(str, given.values())) if "loss" in given else "TRL")
def test_losses_away_from_the_reference(base, beside, tmp_path, agree, ours, named):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    name = "DPO, " + ", ".join(map(str, ours.values()))
    mine = loss_and_gradient(base, beside, EVEN, **{"beta": 0.3, **ours})
    settings = DPOConfig(str(tmp_path / "out"), beta=0.3, max_length=256, **named, **COMMON)
    line = theirs(DPOTrainer(str(base), ref_model=AutoModelForCausalLM.from_pretrained(beside), args=settings,
                             train_dataset=Dataset.from_list(EVEN),
                             processing_class=AutoTokenizer.from_pretrained(base)))
    assert mine["margin"] != 0
    agree(f"{name}: loss", "TRL DPOTrainer", abs(mine["loss"] - line["loss"]), 1e-5 * (1 + abs(line["loss"])))
    agree(f"{name}: norm of the gradient", "TRL DPOTrainer", abs(mine["grad_norm"] / line["grad_norm"] - 1), 1e-4)


def test_contrastive_preference_optimisation(base, tmp_path, agree):
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    mine = loss_and_gradient(base, base, EVEN, loss="cpo", beta=0.3)
    settings = CPOConfig(str(tmp_path / "out"), beta=0.3, max_length=256, **COMMON)
    line = theirs(CPOTrainer(str(base), args=settings, train_dataset=Dataset.from_list(EVEN),
                             processing_class=AutoTokenizer.from_pretrained(base)))
    agree("CPO: loss", "TRL CPOTrainer", abs(mine["loss"] - line["loss"]), 1e-5 * (1 + abs(line["loss"])))
    agree("CPO: likelihood of the chosen", "TRL CPOTrainer", abs(mine["nll"] - line["nll_loss"]), 1e-5)
    agree("CPO: norm of the gradient", "TRL CPOTrainer", abs(mine["grad_norm"] / line["grad_norm"] - 1), 1e-4)


def test_odds_ratio_preference_optimisation(base, tmp_path, agree):
    """TRL adds the likelihood of prompts too, ours that of responses alone; the odds' part is the same."""
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer
    mine = loss_and_gradient(base, base, EVEN, loss="orpo")
    settings = ORPOConfig(str(tmp_path / "out"), max_length=256, **COMMON)
    trainer = ORPOTrainer(str(base), args=settings, train_dataset=Dataset.from_list(EVEN),
                          processing_class=AutoTokenizer.from_pretrained(base))
    line = theirs(trainer)
    agree("ORPO: odds' part of the loss", "TRL ORPOTrainer",
          abs((mine["loss"] - mine["nll"]) - (line["loss"] - line["nll_loss"])), 1e-5)
    sides = [[torch.tensor([-0.01, -0.7, -4.0], requires_grad=True), torch.tensor([-0.4, -0.7, -0.02],
                                                                                  requires_grad=True)] for _ in "ab"]
    ours = find_preference_loss("orpo")(*sides[0], None, None, 0.1)
    trl = -trainer.odds_ratio_loss(*sides[1])[0]
    for losses in (ours, trl):
        losses.sum().backward()
    agree("ORPO: losses of the same log-probabilities", "TRL ORPOTrainer",
          float((ours - trl).detach().abs().max()), 1e-6)
    agree("ORPO: their gradients", "TRL ORPOTrainer",
          max(float((one.grad - other.grad).abs().max()) for one, other in zip(*sides, strict=True)), 1e-5)


def test_kahneman_tversky_optimisation(base, tmp_path, agree):
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer
    thumbs = [{"prompt": row["prompt"], "completion": text, "label": label} for row in RANKINGS
              for text, label in zip(row["responses"], (True, False), strict=True)]
    mine = first_update(base, tmp_path, "kto", thumbs, feedback=str(tmp_path / "rows.jsonl"), beta=0.3)
    chats = [{**row, "completion": [{"role": "assistant", "content": row["completion"]}]} for row in thumbs]
    line = theirs(KTOTrainer(
        str(base), args=KTOConfig(str(tmp_path / "out"), beta=0.3, max_length=256,
                                  **{**COMMON, "per_device_train_batch_size": 8}),
        train_dataset=Dataset.from_list(chats), processing_class=AutoTokenizer.from_pretrained(base)))
    agree("KTO: loss of the first update", "TRL KTOTrainer", abs(mine["loss"] - line["loss"]), 1e-5)
    agree("KTO: norm of the gradient", "TRL KTOTrainer", abs(mine["gradient_norm"] / line["grad_norm"] - 1), 1e-4)


def test_reward_models(base, tmp_path, agree):
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer
    made = run_reward(base, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(made, num_labels=1)
    trainer = RewardTrainer(model, RewardConfig(str(tmp_path / "out"), max_length=256, **COMMON),
                            train_dataset=Dataset.from_list(PAIRS),
                            processing_class=AutoTokenizer.from_pretrained(base))
    line = theirs(trainer)
    scores = [[load(made).score(row["prompt"] + row[side]) for row in PAIRS] for side in ("chosen", "rejected")]
    loss = -torch.nn.functional.logsigmoid(torch.tensor(scores[0]) - torch.tensor(scores[1])).mean()
    agree("reward model: loss by our scores", "TRL RewardTrainer", abs(float(loss) - line["loss"]), 1e-5)


def run_reward(base, folder):
    first_update(base, folder, "reward", RANKINGS, preferences=str(folder / "rows.jsonl"))
    return folder / "runs" / "reward" / "reward"


@pytest.mark.parametrize(("settings", "named"), [
    ({"objective": "grpo"}, {"loss_type": "bnpo"}),
    ({"objective": "grpo", "aggregation": "responses", "clip_high": 0.1}, {"loss_type": "grpo", "epsilon_high": 0.1}),
    ({"objective": "dr_grpo"}, {"loss_type": "dr_grpo"}),
    ({"objective": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    ({"objective": "gspo"}, {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4,
                             "epsilon_high": 4e-4}),
    ({"objective": "cispo"}, {"loss_type": "cispo", "epsilon_high": 5.0}),
    ({"objective": "dapo", "importance_cap": 1.05}, {"loss_type": "dapo", "epsilon_high": 0.28}),
], ids=["grpo", "grpo by responses", "dr_grpo", "dapo", "gspo", "cispo", "dapo with a cap"])
def test_objectives_without_a_value_model(base, tmp_path, agree, settings, named, request):
    """The same tensors: ragged responses, old log-probabilities, those of a reference, advantages, weights."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    policy, _ = load_language_model(base)
    made = groups_of(policy)
    ours = Grpo(**settings, kl_coefficient=0.1, samples=SAMPLES, max_new_tokens=LONGEST)
    rollout = rollout_of(made, ours)
    loss, gradient, _ = learned(policy, ours, rollout)
    trainer = GRPOTrainer(str(base), lambda completions, **rest: [0.0] * len(completions), GRPOConfig(
        str(tmp_path / "out"), beta=0.1, use_bias_correction_kl=False, num_generations=SAMPLES,
        max_completion_length=LONGEST, **named, **COMMON),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 8))
    trainer.current_gradient_accumulation_steps = 1
    given = padded(made, rollout)
    trainer.use_vllm = "importance_sampling_ratio" in given
    expected = trainer._compute_loss(trainer.model.train(), given)
    expected.backward()
    name = request.node.callspec.id
    agree(f"{name}: loss", "TRL GRPOTrainer", abs(loss - expected.item()), 1e-5)
    slopes = {name: weight.grad for name, weight in trainer.model.named_parameters()}
    assert gradient.keys() == slopes.keys()
    agree(f"{name}: gradient", "TRL GRPOTrainer", max(
        float((gradient[name] - slope).abs().max()) for name, slope in slopes.items()), 1e-5)


def padded(made, rollout):
    """Groups as TRL's trainer takes them: prompts padded on the left, responses on the right."""
    pairs = [(tree.prompt, response) for tree in made.trees for response in tree.responses]
    width, length = max(len(prompt) for prompt, _ in pairs), max(len(response) for _, response in pairs)

    def right(values):
        rows = torch.zeros(len(pairs), length, dtype=values[0].dtype)
        for row, value in zip(rows, values, strict=True):
            row[:len(value)] = value
        return rows

    prompts, mask = torch.zeros(len(pairs), width, dtype=torch.int64), torch.zeros(len(pairs), width, dtype=torch.int64)
    for number, (prompt, _) in enumerate(pairs):
        prompts[number, width - len(prompt):], mask[number, width - len(prompt):] = torch.from_numpy(prompt), 1
    arrays = {name: right([part.float() for part in flat(made.trees, values)])
              for name, values in rollout.arrays.items()}
    found = {"prompt_ids": prompts, "prompt_mask": mask,
             "completion_ids": right([torch.from_numpy(response) for _, response in pairs]),
             "completion_mask": right([torch.ones(len(response), dtype=torch.int64) for _, response in pairs]),
             "advantages": arrays["advantages"][:, 0], "old_per_token_logps": arrays["log_probs"],
             "ref_per_token_logps": arrays["reference"],
             "num_items_in_batch": torch.tensor(float(sum(len(response) for _, response in pairs)))}
    if "importance" in arrays:
        found["importance_sampling_ratio"] = arrays["importance"]
    return found
