"""Peak memory of PPO with adapters against that of SFT with the same adapter: policy, reference, reward and value model
on one trunk.

    python benchmarks/ppo_memory.py [--quick] [--rounds 1] [--data FOLDER]

A decoder of 80M parameters in float32 (12 layers of 768), LoRA of rank 8 on every matrix of a block. Both sides are the
stages as they are, each in a process of its own, and make 4 updates of 4 rows of 128 tokens: SFT of conversations, PPO
of prompts of up to 80 tokens with responses of 48 (two rollouts of 8, one pass each in 2 minibatches, checkpoints
included). The reward model is a LoRA on the same base. What is measured is the most memory that the process ever held,
Python and the libraries among it; the second line leaves out what it held before the first model was read. Two minutes
on a core.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common

ROWS, LENGTH, NEW_TOKENS = 4, 128, 48
ADAPTER = {"kind": "lora", "rank": 8}


def prepare_folders(folder: Path, data: Path, layers: int) -> None:
    """A base, a reward model as an adapter on it, demonstrations and prompts."""
    import torch

    from trivium.model import LanguageModel, ModelConfig
    from trivium.model.adapters import AdapterSettings, attach
    from trivium.model.adapters import folder as adapter_folder
    from trivium.model.folder import save_config
    from trivium.stages.models import prompt_ids, save_model
    from trivium.tokenizer.chat import ChatTokenizer
    from trivium.tokenizer.train import train
    rows = common.demonstrations(data, 1000)
    tokenizer = ChatTokenizer(train([row["prompt"] + row["completion"] for row in rows], 4096))
    base = LanguageModel(
        ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=768, intermediate_size=2048, num_layers=layers,
                    num_heads=12, num_kv_heads=4, head_dim=64, max_positions=LENGTH)).initialise(0)
    for name in ("base", "reward"):
        (folder / name).mkdir()
    save_model(base, tokenizer, folder / "base")
    attached = attach(base, AdapterSettings(**ADAPTER), 1)
    generator = torch.Generator().manual_seed(2)
    for _, weight in attached.parameters():
        weight.data += 0.01 * torch.randn(weight.shape, generator=generator)
    adapter_folder.save(base.rewarding(3), attached, folder / "reward", "../base",
                        adapter_folder.weights_digest(folder / "base"))
    tokenizer.save(folder / "reward")
    save_config(base, folder / "reward", tokenizer.ids)
    prompts = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    chosen = [prompt for prompt in prompts if len(prompt_ids(tokenizer, prompt)) <= LENGTH - NEW_TOKENS]
    (folder / "prompts.jsonl").write_text("".join(
        json.dumps({"id": i, "prompt": prompt}) + "\n" for i, prompt in enumerate(chosen)))
    (folder / "demonstrations.jsonl").write_text("".join(
        json.dumps({
            "messages": [{"role": "user", "content": row["prompt"]},
                         {"role": "assistant", "content": row["completion"]}]
        }) + "\n" for row in rows))


def run(options: dict[str, Any]) -> dict[str, float]:
    """One of the stages, in this process: its peak in MiB, and that before it began."""
    from trivium.stages.finetuning.sft import Sft
    from trivium.stages.reinforcement.ppo import Ppo
    folder, place = Path(options["folder"]), Path(tempfile.mkdtemp()) / "run/.work/stage"
    place.mkdir(parents=True)
    progress = SimpleNamespace(say=lambda text: print(text, file=sys.stderr), update=lambda *_: None)
    context: Any = SimpleNamespace(
        folder=place, scratch=place / "scratch", progress=progress, seed=0, name=options["side"], threads=None, inputs={
            "model": folder / "base", "reward": folder / "reward", "prompts": folder / "prompts.jsonl",
            "demonstrations": folder / "demonstrations.jsonl"
        })
    before = peak()
    if options["side"] == "sft":
        found = Sft.model_validate({
            "adapter": ADAPTER, "length": LENGTH, "rows": ROWS, "too_long": "cut", "epochs": options["epochs"],
            "precision": "float32"
        }).run(context)
    else:
        found = Ppo.model_validate({
            "adapter": ADAPTER, "length": LENGTH, "rows": ROWS, "episodes": 2 * ROWS, "minibatches": 2, "epochs": 1,
            "iterations": 2, "max_new_tokens": NEW_TOKENS, "precision": "float32"
        }).run(context)
    print(found, file=sys.stderr)
    return {"peak": peak(), "before": before}


def peak() -> float:
    """The most memory that this process has held, in MiB. (What ``getrusage`` says counts its parent's before it.)"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Both sides in turn."""
    options = common.arguments(__doc__ or "", rounds=1)
    if options.worker:
        print(json.dumps(run(json.loads(options.worker))))
        return
    folder = Path(tempfile.mkdtemp())
    prepare_folders(folder, options.data, 2 if options.quick else 12)
    seen: dict[str, dict[str, float]] = {}

    def side(name: str) -> Any:
        def measured() -> float:
            seen[name] = common.call(__file__, {"folder": str(folder), "side": name, "epochs": 0.016})
            return seen[name]["peak"]
        return measured

    found = common.in_turn({name: side(name) for name in ("ppo", "sft")}, options.rounds)
    own = {name: seen[name]["peak"] - seen[name]["before"] for name in seen}
    goal = round(1 / 1.3, 2)
    common.report("ppo_memory", [
        common.Result("peak memory, PPO against SFT", found["ppo"], found["sft"], "MiB", goal, lower_is_better=True),
        common.Result("beyond the libraries", own["ppo"], own["sft"], "MiB", lower_is_better=True)
    ])


if __name__ == "__main__":
    main()
