"""What the benchmarks of reward modeling, DPO and KTO share: the rows, the model, our side and TRL's.

Not a benchmark itself: run reward.py, dpo.py or kto.py.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
from sft import SHAPE, train_tokenizer

Rows = list[dict[str, Any]]
CUT = 600
"""Characters of a response that both sides see."""


def human_pairs(data: Path) -> Rows:
    """Comparisons of dialogues by people (HH, harmlessness) as prompt, chosen, rejected; those that differ before the
    last turn are left out; where the data is not there, the embedded world's rankings of two."""
    path = data / "hh-rlhf/harmless-base/test.jsonl.gz"
    if not path.exists():
        return [{"prompt": row["prompt"], "chosen": row["responses"][0], "rejected": row["responses"][1]}
                for row in of_the_world(2)]
    mark, rows = "\n\nAssistant:", []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            cut = row["chosen"].rindex(mark) + len(mark)
            if row["rejected"].startswith(row["chosen"][:cut]):
                rows.append(
                    {"prompt": row["chosen"][:cut], "chosen": row["chosen"][cut:], "rejected": row["rejected"][cut:]})
    return rows


def as_rankings(rows: Rows) -> Rows:
    """Pairs as rankings of two."""
    return [{"prompt": row["prompt"], "responses": [row["chosen"], row["rejected"]]} for row in rows]


def of_the_world(count: int) -> Rows:
    """Prompts of the embedded world with as many made-up responses."""
    rows = common.demonstrations(Path("/nowhere"), 2000)
    return [{"prompt": row["prompt"], "responses": [rows[(n + 7 * k) % len(rows)]["completion"] for k in range(count)]}
            for n, row in enumerate(rows)]


def rankings_of_nine(data: Path) -> Rows:
    """AlpacaEval: an instruction with the answers of nine models, best first by how often GPT-4 preferred each to the
    baseline."""
    path = data / "alpaca_eval/alpaca_eval_gpt4-annotations.tar.gz"
    if not path.exists():
        return of_the_world(9)
    found: dict[str, dict[str, float]] = {}
    with tarfile.open(path) as archive:
        for member in sorted((m for m in archive if m.name.endswith("annotations.json")), key=lambda m: m.name):
            file = archive.extractfile(member)
            assert file is not None
            for row in json.load(file):
                answers = found.setdefault(row["instruction"], {row["output_1"][:CUT]: 1.5})
                if row["preference"] in (1, 2):
                    answers.setdefault(row["output_2"][:CUT], float(row["preference"]))
    rows = [{"prompt": prompt, "responses": sorted(answers, key=lambda text: -answers[text])[:9]}
            for prompt, answers in found.items()]
    return [row for row in rows if len(row["responses"]) == 9 and all(row["responses"])]


def expanded(rows: Rows) -> Rows:
    """Rankings as all their pairs: what a library needs that knows pairs alone."""
    return [{"prompt": row["prompt"], "chosen": row["responses"][a], "rejected": row["responses"][b]}
            for row in rows for a in range(len(row["responses"])) for b in range(a + 1, len(row["responses"]))]


def our_model(kind: Any) -> Any:
    """The Llama of 6.8M parameters."""
    from trivium.model import ModelConfig
    return kind(
        ModelConfig(vocab_size=SHAPE["vocab_size"], hidden_size=SHAPE["hidden_size"],
                    intermediate_size=SHAPE["intermediate_size"], num_layers=SHAPE["layers"], num_heads=SHAPE["heads"],
                    num_kv_heads=SHAPE["heads"], head_dim=SHAPE["hidden_size"] // SHAPE["heads"], max_positions=4096,
                    qk_norm=False, tie_embeddings=False))


def ours(options: dict[str, Any]) -> dict[str, float]:
    """Our loop: rankings, pairs or thumbs a second, after two updates that warm up."""
    import numpy as np
    import torch
    from tokenizers import Tokenizer

    from trivium.model import LanguageModel, RewardModel
    from trivium.stages.preferences.dpo import DirectPreference, Dpo
    from trivium.stages.preferences.kto import KahnemanTversky, add_labels, mismatched, mismatched_batch, shared
    from trivium.stages.preferences.rankings import add_pairs, pairs_of
    from trivium.stages.preferences.reference import response_log_probs
    from trivium.stages.preferences.reward import Ranking
    from trivium.training.batch import Tree, make_batch, pack
    from trivium.training.epochs import PackedEpochs
    from trivium.training.machine import prepare, resolve_precision
    from trivium.training.optimizers import Optimization
    from trivium.training.trainer import Trainer
    device = prepare()
    tokenizer = Tokenizer.from_file(options["tokenizer"])

    def ids(text: str, end: bool = False) -> Any:
        return np.array([*tokenizer.encode(text).ids, *([2] if end else [])])

    def in_groups(groups: Sequence[Sequence[Tree]]) -> Callable[[int], list[Any]]:
        """Batches of groups of trees whose responses are ranked together, best first."""
        packed = pack([sum(map(len, group)) for group in groups], length)
        random.Random(0).shuffle(packed)

        def batch(step: int) -> list[Any]:
            chosen = [packed[(step * options["batch"] + i) % len(packed)] for i in range(options["batch"])]
            made = make_batch([[tree for i in row for tree in groups[i]] for row in chosen], length)
            places = [
                pairs_of([[k] for k in range(sum(len(tree.responses) for tree in groups[i]))]) for row in chosen
                for i in row
            ]
            firsts = np.cumsum([0, *(sum(len(tree.responses) for tree in groups[i]) for row in chosen for i in row)])
            winners, losers = zip(
                *((first + a, first + b) for first, pairs in zip(firsts, places, strict=False) for a, b in pairs),
                strict=True)
            made.extra = {"winners": torch.tensor(winners), "losers": torch.tensor(losers),
                          "pair_weights": torch.tensor([1 / len(pairs) for pairs in places for _ in pairs])}
            made.counts |= {"trees": float(len(places)), "pairs": float(len(winners))}
            return [made]
        return batch

    rows, length, task = json.loads(Path(options["rows"]).read_text()), options["length"], options["task"]
    language_model = our_model(LanguageModel).initialise(0).to(device)
    objective: Any
    if task == "reward":
        model = RewardModel.from_language_model(language_model, 0).to(device)
        ranked = [(ids(row["prompt"]), [ids(text, True) for text in row["responses"]]) for row in rows]
        alone = [[Tree(prompt, (response,)) for response in responses] for prompt, responses in ranked]
        forms = {
            "shared": [[Tree(prompt, tuple(responses))] for prompt, responses in ranked], "responses": alone,
            "pairs": [[group[a], group[b]] for group in alone for a in range(len(group))
                      for b in range(a + 1, len(group))]
        }
        groups = [group for group in forms[options["form"]] if sum(map(len, group)) <= length]
        objective, batches, counted = Ranking(), in_groups(groups), "trees"
    elif task == "dpo":
        model, counted = language_model, "trees"
        trees = [
            Tree(ids(row["prompt"]), (ids(row["chosen"], True), ids(row["rejected"], True)), payload=[[0], [1]])
            for row in rows
        ]
        objective = DirectPreference(Dpo())

        def finish(batch: Any) -> None:
            add_pairs(batch)
            # a stage computes these once for all epochs; here they cost a forward pass in every step
            with torch.no_grad():
                batch.extra["reference"] = response_log_probs(reference, batch)
    else:
        model, counted = language_model, "responses"
        single = [Tree(ids(row["prompt"]), (ids(row["completion"], True),), payload=(row["label"],)) for row in rows]
        trees = mismatched(shared([tree for tree in single if len(tree) <= length], length), length)
        objective = KahnemanTversky(0.1, 1.0, 1.0,
                                    lambda trees: torch.zeros(sum(len(tree.responses) for tree in trees)))

        def finish(batch: Any) -> None:
            # a stage computes these once for all epochs; the mismatched ones are made for their cost, and count as 0
            with torch.no_grad():
                add_labels(batch, lambda _: response_log_probs(reference, batch))
                response_log_probs(reference, mismatched_batch(batch))
    if task != "reward":
        reference = our_model(LanguageModel).initialise(0).to(device).eval()
        batches = PackedEpochs([tree for tree in trees if len(tree) <= length], length, options["batch"], 0, finish)
    trainer = Trainer(model, Optimization(learning_rate=2e-5), 10**6, resolve_precision("auto", device))
    for step in range(2):
        trainer.step(step, batches(step), objective)
    begun, done, tokens = time.perf_counter(), 0.0, 0
    for step in range(2, 2 + options["steps"]):
        batch = batches(step)
        done, tokens = done + sum(each.counts[counted] for each in batch), tokens + sum(each.real for each in batch)
        trainer.step(step, batch, objective)
    seconds = time.perf_counter() - begun
    return {"per_second": done / seconds, "tokens_per_second": tokens / seconds}


def theirs(options: dict[str, Any]) -> dict[str, float]:
    """TRL's trainer: rows a second after two updates."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    import torch
    from datasets import Dataset
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        PreTrainedTokenizerFast,
        TrainerCallback,
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=options["tokenizer"], pad_token="<pad>", bos_token="<bos>",
                                        eos_token="<eos>")
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    def config(**extra: Any) -> Any:
        return LlamaConfig(vocab_size=SHAPE["vocab_size"], hidden_size=SHAPE["hidden_size"],
                           intermediate_size=SHAPE["intermediate_size"], num_hidden_layers=SHAPE["layers"],
                           num_attention_heads=SHAPE["heads"], num_key_value_heads=SHAPE["heads"],
                           max_position_embeddings=1024, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1,
                           eos_token_id=2, **extra)

    native = any(torch.cpu.get_capabilities().get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    steps = options["steps"] + 2
    shared = {
        "output_dir": tempfile.mkdtemp(), "max_steps": steps, "report_to": "none", "save_strategy": "no",
        "use_cpu": True, "per_device_train_batch_size": 8, "gradient_checkpointing": False, "disable_tqdm": True,
        "bf16": native, "max_length": 512, "dataloader_pin_memory": False
    }
    rows = Dataset.from_list(json.loads(Path(options["rows"]).read_text()))
    trainer: Any
    if options["task"] == "reward":
        from trl import RewardConfig, RewardTrainer
        trainer = RewardTrainer(model=LlamaForSequenceClassification(config(num_labels=1)), args=RewardConfig(**shared),
                                train_dataset=rows, processing_class=tokenizer, callbacks=[Clock()])
    elif options["task"] == "dpo":
        from trl import DPOConfig, DPOTrainer
        trainer = DPOTrainer(model=LlamaForCausalLM(config()), ref_model=LlamaForCausalLM(config()),
                             args=DPOConfig(**shared), train_dataset=rows, processing_class=tokenizer,
                             callbacks=[Clock()])
    else:
        try:
            from trl.experimental.kto import KTOConfig, KTOTrainer
        except ImportError:
            from trl import KTOConfig, KTOTrainer
        trainer = KTOTrainer(model=LlamaForCausalLM(config()), ref_model=LlamaForCausalLM(config()),
                             args=KTOConfig(**shared), train_dataset=rows, processing_class=tokenizer,
                             callbacks=[Clock()])
    trainer.train()
    return {"per_second": 8 * options["steps"] / (ends[-1] - ends[1])}


PEERS = {
    "ours": "one pass a response, shared prompt", "responses": "ours, one pass a response",
    "pairs": "ours, every pair by itself"
}
"""What of our speed comes from where: the same loop without the shared prompt, and without one pass a response
either."""


def fitting(rows: Rows, tokenizer: Path, length: int) -> Rows:
    """The rows that fit ``length`` tokens with all that is said in them: both sides are given these alone."""
    from tokenizers import Tokenizer
    reader = Tokenizer.from_file(str(tokenizer))
    texts = [[
        row["prompt"],
        *(row.get("responses") or [row[key] for key in ("chosen", "rejected", "completion") if key in row])
    ] for row in rows]
    sizes = [sum(len(reader.encode(text).ids) + 1 for text in each) for each in texts]
    return [row for row, size in zip(rows, sizes, strict=True) if size <= length]


def main(name: str, doc: str, script: str, cases: list[dict[str, Any]]) -> None:
    """Both sides in turn, for each case: ``label``, ``task``, our ``rows``, what a library is given of a row
    (``expand``), ``each`` (of their rows in one of ours), ``length``, ``batch``, ``unit``, ``goal`` and ``tuned_goal``.
    Where a ranking can be learned from in several ways, ours is measured in each of them."""
    options = common.arguments(doc, [case["label"] for case in cases])
    if options.worker:
        given = json.loads(options.worker)
        print(json.dumps((ours if given["side"] == "ours" else theirs)(given)))
        return
    python = common.peers("trl", "trl>=1.16,<2", "datasets", "transformers<6")
    folder, results, figures = Path(tempfile.mkdtemp()), [], {}
    for case in cases:
        if options.only not in (None, case["label"]):
            continue
        rows = case["rows"](options.data)
        random.Random(0).shuffle(rows)
        train_tokenizer([{
            "prompt": row["prompt"], "completion": " ".join(
                row.get("responses") or [row[k] for k in ("chosen", "rejected", "completion") if k in row])
        } for row in rows[:1000]], folder / "tokenizer.json")
        mine = fitting(rows, folder / "tokenizer.json", case["length"])[:4000 // case["each"]]
        (folder / "rows.json").write_text(json.dumps(mine))
        (folder / "theirs.json").write_text(json.dumps(case["expand"](mine)))
        base = {
            "task": case["task"], "tokenizer": str(folder / "tokenizer.json"), "length": case["length"],
            "batch": case["batch"], "form": "shared"
        }

        def side(python: str, environment: dict[str, str] | None = None, each: int = 1, base: dict[str, Any] = base,
                 **more: Any) -> Any:
            def run() -> float:
                found = common.call(script, {**base, "steps": 3 if options.quick else 8, **more}, python,
                                    environment)["per_second"]
                return float(found) / each
            return run

        own = {"side": "ours", "rows": str(folder / "rows.json")}
        sides = {"ours": side(sys.executable, **own)}
        if case["task"] == "reward":
            sides["responses"] = side(sys.executable, form="responses", **own)
            if case["each"] > 1:
                sides["pairs"] = side(sys.executable, each=case["each"], form="pairs", **own)
        sides["TRL"] = side(python, each=case["each"], side="trl", rows=str(folder / "theirs.json"))
        if not options.quick:
            sides["TRL (tuned)"] = side(python, common.ALLOCATOR, each=case["each"], side="trl",
                                        rows=str(folder / "theirs.json"))
        found = common.in_turn(sides, 1 if options.quick else options.rounds)
        steps = [peer for peer in ("ours", "responses", "pairs", "TRL") if peer in found]
        parts = {f"{PEERS.get(a, a)} / {PEERS.get(b, b)}": found[a] / found[b] for a, b in itertools.pairwise(steps)}
        figures[case["label"]] = {"medians": found, "factors": parts}
        for what, factor in parts.items() if len(parts) > 1 else ():
            print(f"{case['label']}: {what}: {factor:.2f} times")
        results += [
            common.Result(f"{case['label']}, {peer}", found["ours"], found[peer], case["unit"],
                          case["tuned_goal" if "tuned" in peer else "goal"]) for peer in found if peer.startswith("TRL")
        ]
    common.report(name, results, figures=figures)
