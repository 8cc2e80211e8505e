"""PPO against TRL's PPOTrainer (1.12, the last release that has it): episodes a second, generation included.

    python benchmarks/ppo.py [--quick] [--rounds 3] [--data FOLDER]

One Llama of 6.8M parameters as policy, reference, reward and value model, with the same weights and the same prompts on
both sides (GSM8K's questions as chats; the embedded world's where they are not there). A rollout is 64 episodes of 48
new tokens, learned from in 4 epochs of one minibatch. The first rollout of each side warms up and is not counted. Ours
is the stage as it is, its checkpoint after every rollout included. Tuned, TRL keeps its activations, and has 32 rows at
a time and an allocator that keeps large buffers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
from preferences import our_model

EPISODES, NEW_TOKENS, EPOCHS = 64, 48, 4


def prepare_folders(folder: Path, data: Path) -> None:
    """The models' folders, the prompts, and the prompts as token ids."""
    from trivium.model import LanguageModel, RewardModel
    from trivium.stages.models import prompt_ids, save_model
    from trivium.tokenizer.chat import ChatTokenizer
    from trivium.tokenizer.train import train
    rows = common.demonstrations(data, 2000)
    tokenizer = ChatTokenizer(train([row["prompt"] + row["completion"] for row in rows], 4096))
    policy = our_model(LanguageModel).initialise(0)
    for name, model in (("sft", policy), ("reward",
                                          RewardModel.from_language_model(our_model(LanguageModel).initialise(1), 1))):
        (folder / name).mkdir()
        save_model(model, tokenizer, folder / name)
    prompts = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    asked = [(prompt, ids) for prompt in prompts if len(ids := prompt_ids(tokenizer, prompt).tolist()) <= 160][:1024]
    (folder / "prompts.jsonl").write_text("".join(
        json.dumps({"id": i, "prompt": prompt}) + "\n" for i, (prompt, _) in enumerate(asked)))
    (folder / "ids.json").write_text(json.dumps([ids for _, ids in asked]))


def ours(options: dict[str, Any]) -> dict[str, float]:
    """The stage."""
    from trivium.stages.reinforcement.ppo import Ppo
    folder, ends = Path(options["folder"]), []

    class Clock:
        def say(self, text: str) -> None:
            print(text, file=sys.stderr)

        def update(self, *_: Any) -> None:
            ends.append(time.perf_counter())

    place = Path(tempfile.mkdtemp())
    context: Any = SimpleNamespace(
        folder=place, scratch=place / "scratch", progress=Clock(), seed=0, name="ppo",
        threads=len(os.sched_getaffinity(0)),
        inputs={"model": folder / "sft", "reward": folder / "reward", "prompts": folder / "prompts.jsonl"})
    Ppo(iterations=1 + options["rollouts"], episodes=EPISODES, epochs=EPOCHS, minibatches=1, max_new_tokens=NEW_TOKENS,
        length=256, rows=16).run(context)
    log = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    return {
        "per_second": EPISODES * options["rollouts"] / (ends[-1] - ends[0]),
        "length": sum(line["length"] for line in log) / len(log)
    }


def theirs(options: dict[str, Any]) -> dict[str, float]:
    """TRL's trainer, whose responses never stop before their length."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer
    folder, ends = Path(options["folder"]), []
    tokenizer = AutoTokenizer.from_pretrained(folder / "sft", padding_side="left")

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    native = any(torch.cpu.get_capabilities().get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    policy, reference = (LlamaForCausalLM.from_pretrained(folder / "sft") for _ in range(2))
    reward, value = (LlamaForSequenceClassification.from_pretrained(folder / "reward", num_labels=1) for _ in range(2))
    rows = Dataset.from_list([{"input_ids": ids} for ids in json.loads((folder / "ids.json").read_text())])
    each = options["each"]
    config = PPOConfig(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=each,
                       gradient_accumulation_steps=EPISODES // each, num_mini_batches=1, num_ppo_epochs=EPOCHS,
                       total_episodes=EPISODES * (1 + options["rollouts"]), response_length=NEW_TOKENS, temperature=1.0,
                       kl_coef=0.05, num_sample_generations=0, report_to="none", save_strategy="no", use_cpu=True,
                       disable_tqdm=True, bf16=native, dataloader_pin_memory=False,
                       **({} if each == 8 else {"gradient_checkpointing": False}))  # it comes with checkpointing on
    trainer = PPOTrainer(args=config, processing_class=tokenizer, model=policy, ref_model=reference,
                         reward_model=reward, value_model=value, train_dataset=rows, eval_dataset=rows.select(range(8)),
                         callbacks=[Clock()])
    trainer.train()
    return {"per_second": EPISODES * options["rollouts"] / (ends[-1] - ends[0]), "length": float(NEW_TOKENS)}


def main() -> None:
    """Both sides in turn."""
    options = common.arguments(__doc__ or "")
    if options.worker:
        given = json.loads(options.worker)
        print(json.dumps((ours if given["side"] == "ours" else theirs)(given)))
        return
    python = common.peers("trl-ppo", "trl==1.12.0", "datasets", "transformers<6")
    folder = Path(tempfile.mkdtemp())
    prepare_folders(folder, options.data)
    lengths: dict[str, float] = {}

    def side(name: str, python: str, environment: dict[str, str] | None = None, **more: Any) -> Any:
        def run() -> float:
            found = common.call(__file__, {"folder": str(folder), "rollouts": 1 if options.quick else 3, **more},
                                python, environment)
            lengths[name] = found["length"]
            return float(found["per_second"])
        return run

    sides = {"ours": side("ours", sys.executable, side="ours"), "TRL 1.12": side("TRL", python, side="trl", each=8)}
    if not options.quick:
        sides["TRL 1.12 (tuned)"] = side("TRL", python, common.ALLOCATOR, side="trl", each=32)
    found = common.in_turn(sides, 1 if options.quick else options.rounds)
    results = [
        common.Result(f"episodes, {peer}", found["ours"], found[peer], "episodes/s", None if "tuned" in peer else 5.0)
        for peer in found if peer != "ours"
    ]
    common.report("ppo", results, tokens_an_episode=lengths)


if __name__ == "__main__":
    main()
