"""What a checkpoint costs training: the seconds that updates wait, if it is written meanwhile or in the background.

    python benchmarks/checkpoints.py [--sizes 7 50 135] [--precisions float32 bf16-weights] [--folder FOLDER]

Decoders with random weights and AdamW's state after an update, the largest of SmolLM2-135M's shape. `synchronous` is
what was done before: the library's `save_file`, a second reading for the digest, and a note, while the update waits.
`background` is :class:`trivium.training.saving.Saver`: the first copy takes fresh memory, a later one that of the one
before. `processor` are the seconds that the copying thread ran, which others on the machine do not lengthen as much.
`written after` is when it is whole on the disk; `share` is what saving takes at the interval that the loop chooses by
itself. A minute on a core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from trivium.files import digest_file, write_json, written_aside
from trivium.model import LanguageModel, ModelConfig
from trivium.training.checkpoint import parts_of
from trivium.training.machine import prepare
from trivium.training.parallel import World
from trivium.training.saving import Saver
from trivium.training.settings import Optimization
from trivium.training.trainer import Trainer

SHAPES = {
    7: ModelConfig(vocab_size=8192, hidden_size=256, intermediate_size=768, num_layers=6, num_heads=4, num_kv_heads=2,
                   head_dim=64, tie_embeddings=True),
    50: ModelConfig(vocab_size=32768, hidden_size=512, intermediate_size=1536, num_layers=12, num_heads=8,
                    num_kv_heads=4, head_dim=64, tie_embeddings=True),
    135: ModelConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_layers=30, num_heads=9,
                     num_kv_heads=3, head_dim=64, tie_embeddings=True, qk_norm=False),
}


def trained(config: ModelConfig, precision: str) -> Trainer:
    """A model with the state that AdamW has after an update."""
    trainer = Trainer(LanguageModel(config).initialise(0), Optimization(), 10, precision)  # type: ignore[arg-type]
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = torch.full_like(weight, 1e-3)
        optimizer.step()
        optimizer.zero_grad()
    return trainer


def synchronous(trainer: Trainer, folder: Path) -> float:
    """Seconds of a save as it was done before."""
    begun = time.monotonic()
    parts, places = parts_of(trainer.model, trainer.optimizers, World())
    path = folder / "old.safetensors"
    with written_aside(path) as aside:
        save_file({name: part.contiguous() for name, part in parts.items()}, aside)
    write_json(path.with_suffix(".json"), {"sha256": digest_file(path), "places": places})
    return time.monotonic() - begun


def background(trainer: Trainer, folder: Path) -> tuple[list[float], list[float], float, float]:
    """Seconds that updates wait for each of three saves, those that the copying thread ran, those until the last one is
    whole, and the share of the time that saving takes at the interval that is chosen."""
    waited, ran = list[float](), list[float]()
    with Saver(folder, World(), trainer.device) as saver:
        for step in (1, 2, 3):
            begun, before = time.monotonic(), time.thread_time()
            saver.save(step, trainer.model, trainer.optimizers, {})
            waited.append(time.monotonic() - begun)
            ran.append(time.thread_time() - before)
            saver.wait()
            whole = time.monotonic() - begun
        return waited, ran, whole, saver.cost / (saver.cost + saver.interval)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--precisions", nargs="*", default=["float32", "bf16-weights"])
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; a temporary one unless given")
    wanted = parser.parse_args()
    prepare()
    print("| parameters | precision | GB | synchronous, s | background: first, s | later, s | processor, s | "
          "written after, s | share |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size in wanted.sizes:
        for precision in wanted.precisions:
            with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
                trainer = trained(SHAPES[size], precision)
                count = sum(weight.numel() for weight in trainer.model.parameters())
                held = sum(part.nbytes for part in parts_of(trainer.model, trainer.optimizers, World())[0].values())
                old = min(synchronous(trainer, Path(folder)) for _ in range(2))
                (first, *later), ran, whole, share = background(trainer, Path(folder) / "new")
                print(f"| {count / 1e6:.1f}M | {precision} | {held / 1e9:.2f} | {old:.2f} | {first:.3f} | "
                      f"{min(later):.3f} | {min(ran):.3f} | {whole:.2f} | {share:.1%} |", flush=True)


if __name__ == "__main__":
    main()
