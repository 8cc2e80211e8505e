"""Supervised fine-tuning against TRL's SFTTrainer and transformers' Trainer: one Llama of 6.8M parameters, the same
rows.

    python benchmarks/sft.py [--quick] [--rounds 3] [--data FOLDER] [--only lora]

Real tokens (neither padding nor counted twice) a second, after two updates that warm up; compile time is stated apart.
Both sides use bf16 where the processor multiplies it, else float32.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHAPE = {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 688, "layers": 6, "heads": 4}


def train_tokenizer(rows: list[dict[str, str]], path: Path) -> None:
    """A byte-level BPE of 4,096 entries, trained on the rows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator([row["prompt"] + row["completion"] for row in rows],
                                  trainers.BpeTrainer(vocab_size=SHAPE["vocab_size"], special_tokens=[
                                      "<pad>", "<bos>", "<eos>"
                                  ], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.save(str(path))


def ours(options: dict[str, Any]) -> dict[str, float]:
    """Our loop."""
    import numpy as np
    from tokenizers import Tokenizer

    from trivium.model import LanguageModel, ModelConfig
    from trivium.stages.pretraining.pretrain import LanguageModeling
    from trivium.training.batch import Tree
    from trivium.training.epochs import PackedEpochs
    from trivium.training.machine import prepare, resolve_precision
    from trivium.training.optimizers import Optimization
    from trivium.training.trainer import Trainer
    device = prepare()
    tokenizer = Tokenizer.from_file(options["tokenizer"])
    rows = json.loads(Path(options["rows"]).read_text())
    trees = [
        Tree(np.array(tokenizer.encode(row["prompt"]).ids), (np.array([*tokenizer.encode(row["completion"]).ids, 2]),))
        for row in rows
    ]
    model = LanguageModel(
        ModelConfig(vocab_size=SHAPE["vocab_size"], hidden_size=SHAPE["hidden_size"],
                    intermediate_size=SHAPE["intermediate_size"], num_layers=SHAPE["layers"], num_heads=SHAPE["heads"],
                    num_kv_heads=SHAPE["heads"], head_dim=SHAPE["hidden_size"] // SHAPE["heads"], max_positions=1024,
                    qk_norm=False, tie_embeddings=False)).initialise(0)
    batches = PackedEpochs(trees, 512, options["batch"], 0)
    if options.get("lora"):
        from trivium.model.adapters import AdapterSettings, attach
        attach(model, AdapterSettings(rank=8, targets=tuple(TARGETS)), 0)
    trainer = Trainer(model.to(device), Optimization(learning_rate=2e-5), 10**6, resolve_precision("auto", device),
                      compiled=options["compile"])
    begun = time.perf_counter()
    for step in range(2):
        trainer.step(step, batches(step), LanguageModeling())
    warm, real = time.perf_counter(), 0
    for step in range(2, 2 + options["steps"]):
        batch = batches(step)
        real += sum(int((each.documents >= 0).sum()) for each in batch)
        trainer.step(step, batch, LanguageModeling())
    return {"tokens_per_second": real / (time.perf_counter() - warm), "warm_up": warm - begun}


def theirs(options: dict[str, Any]) -> dict[str, float]:
    """TRL's SFTTrainer, padded or packed, or transformers' Trainer with its padding collator."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    import torch
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=options["tokenizer"], pad_token="<pad>", bos_token="<bos>",
                                        eos_token="<eos>")
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=SHAPE["vocab_size"], hidden_size=SHAPE["hidden_size"], intermediate_size=SHAPE["intermediate_size"],
        num_hidden_layers=SHAPE["layers"], num_attention_heads=SHAPE["heads"], num_key_value_heads=SHAPE["heads"],
        max_position_embeddings=1024, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    native = any(torch.cpu.get_capabilities().get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    steps = options["steps"] + 2
    shared = {
        "output_dir": tempfile.mkdtemp(), "max_steps": steps, "report_to": "none", "save_strategy": "no",
        "use_cpu": True, "per_device_train_batch_size": options["batch"], "gradient_checkpointing": False,
        "disable_tqdm": True, "bf16": native, "torch_compile": options["compile"], "dataloader_pin_memory": False
    }
    rows = json.loads(Path(options["rows"]).read_text())
    if options["side"] == "trl":
        from trl import SFTConfig, SFTTrainer
        more = {}
        if options.get("lora"):
            from peft import LoraConfig
            more = {"peft_config": LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS, task_type="CAUSAL_LM")}
        trainer: Any = SFTTrainer(model=model, args=SFTConfig(packing=options["packing"], max_length=512,
                                                              **shared), **more, train_dataset=Dataset.from_list(rows),
                                  processing_class=tokenizer, callbacks=[Clock()])
    else:
        from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

        def encode(row: dict[str, str]) -> dict[str, list[int]]:
            prompt, completion = tokenizer(row["prompt"])["input_ids"], [*tokenizer(row["completion"])["input_ids"], 2]
            return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion,
                    "attention_mask": [1] * len(prompt + completion)}

        data = Dataset.from_list([encode(row) for row in rows])
        trainer = Trainer(model=model, args=TrainingArguments(**shared), train_dataset=data, callbacks=[Clock()],
                          data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True))
    counted = 0
    for step, batch in enumerate(trainer.get_train_dataloader()):
        if step >= steps:
            break
        if step >= 2:
            counted += int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
    begun = time.perf_counter()
    trainer.train()
    return {"tokens_per_second": counted / (ends[-1] - ends[1]), "warm_up": ends[1] - begun}


def main() -> None:
    """Both sides in turn."""
    options = common.arguments(__doc__ or "", only=["lora"])
    if options.worker:
        given = json.loads(options.worker)
        print(json.dumps((ours if given["side"] == "ours" else theirs)(given)))
        return
    steps, rounds = (4, 1) if options.quick else (20, options.rounds)
    rows = common.demonstrations(options.data, 2000)
    folder = Path(tempfile.mkdtemp())
    (folder / "rows.json").write_text(json.dumps(rows))
    train_tokenizer(rows, folder / "tokenizer.json")
    shared = {
        "rows": str(folder / "rows.json"), "tokenizer": str(folder / "tokenizer.json"), "steps": steps, "batch": 8
    }
    python = common.peers("trl", "trl>=1.16,<2", "datasets", "transformers<6", "peft")
    warm: dict[str, float] = {}

    def side(name: str, python: str = sys.executable, environment: dict[str, str] | None = None, **more: Any) -> Any:
        def run() -> float:
            found = common.call(__file__, {**shared, "packing": False, "compile": False, **more}, python, environment)
            warm[name] = found["warm_up"]
            return float(found["tokens_per_second"])
        return run

    sides = {
        "ours": side("ours", side="ours"), "ours, compiled": side("ours, compiled", side="ours", compile=True),
        "TRL": side("TRL", python, side="trl"), "transformers.Trainer": side("transformers.Trainer", python,
                                                                             side="trainer")
    }
    if not options.quick:
        sides |= {
            "TRL, packed": side("TRL, packed", python, side="trl",
                                packing=True), "TRL (tuned)": side("TRL (tuned)", python, common.ALLOCATOR, side="trl"),
            "TRL, compiled (tuned)": side("TRL, compiled (tuned)", python, common.ALLOCATOR, side="trl", compile=True)
        }
    adapters = {"ours, LoRA": side("ours, LoRA", side="ours", lora=True),
                "ours, LoRA, compiled": side("ours, LoRA, compiled", side="ours", lora=True, compile=True),
                "TRL + PEFT, LoRA": side("TRL + PEFT, LoRA", python, side="trl", lora=True)}
    if not options.quick:
        adapters["TRL + PEFT, LoRA (tuned)"] = side("TRL + PEFT, LoRA (tuned)", python, common.ALLOCATOR, side="trl",
                                                    lora=True)
    sides = adapters if options.only == "lora" else sides | adapters
    found = common.in_turn(sides, rounds)
    best = {
        lora: max((value for name, value in found.items() if name.startswith("ours") and ("LoRA" in name) == lora),
                  default=0.0)
        for lora in (False, True)
    }
    results = [
        common.Result(name, best["LoRA" in name], value, "real tokens/s",
                      3.5 if "tuned" in name else 5.0 if "LoRA" in name else 6.0) for name, value in found.items()
        if not name.startswith("ours")
    ]
    common.report("sft", results, ours={name: value
                                        for name, value in found.items()
                                        if name.startswith("ours")}, warm_up_seconds=warm)


if __name__ == "__main__":
    main()
