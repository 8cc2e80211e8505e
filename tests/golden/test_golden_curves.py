"""The curves of every kind of training on a decoder against those in curves.json: a changed number is seen.

After a change that is meant to alter them: python tests/golden/test_golden_curves.py

The test reads what users read: a recipe (recipe.yaml), its artifacts' logs, and models loaded from their folders. All
of it is in float32 and on one core. The same machine gives the same bits again, whatever OMP_NUM_THREADS says.

Other processors round otherwise. AVX2 and plain code, put in the place of AVX-512 (ATEN_CPU_CAPABILITY=avx2 with
MKL_CBWR=AVX2, and =default with =COMPATIBLE), stay within TOLERANCE with the recipe's seed. With others small
differences grow where training is unsteady: try both before you choose another seed.

A sampled token is another matter: where its random number falls beside the edge between two tokens, rounding decides,
and all after it is different. So no stage but PPO and GRPO learns from what was sampled: rankings and thumbs are the
test's own rows. In PPO, GRPO and `preferences` the model has learned sums until it is sure of most tokens, it says
few, and with the recipe's seed neither of the code paths above changes one. Where a token does fall otherwise, the
samples are what fails first. Shares that jump at a threshold, such as accuracies, are not compared.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

import trivium

HERE = Path(__file__).parent
CURVES = HERE / "curves.json"

TRAINED = ("loss", "gradient_norm", "learning_rate")
PREFERRED = (*TRAINED, "margin")
PRACTISED = ("kl", "kl_per_token", "score", "length", "finished", "policy_loss", "entropy", "gradient_norm")
LOGGED: dict[str, tuple[str, ...]] = {
    "pretrain": TRAINED, "sft": TRAINED, "sft-lora": TRAINED, "reward": TRAINED, "dpo": PREFERRED, "ipo": PREFERRED,
    "kto": (*TRAINED, "liked_reward", "disliked_reward", "baseline"),
    "ppo": (*PRACTISED, "value_loss", "value_error", "kl_coefficient"),
    "grpo": (*PRACTISED, "kl_loss", "groups_that_teach"),
}
"""What is compared of each line of a stage's log."""

TOLERANCE = {"pretrain": 1e-4, "sft": 1e-4, "sft-lora": 1e-4, "reward": 3e-4, "dpo": 3e-4, "ipo": 3e-4, "kto": 3e-4,
             "ppo": 1e-3, "grpo": 1e-4}
"""How far a number may lie from the golden one, as a share of it or, where it is below 1, as it is."""

ASKED = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "5."}]
"""What each finished model is asked about, after it was loaded from its folder."""


def write_fixed_rows(folder: Path) -> list[str]:
    """Write sums below ten as demonstrations, prompts, rankings and thumbs. Returns the overrides that name them."""
    rows: dict[str, list[dict[str, Any]]] = {"demonstrations": [], "prompts": [], "comparisons": [], "thumbs": []}
    sums = [(a, b) for a in range(1, 9) for b in range(1, 10 - a)]
    for place, (a, b) in enumerate(sums):
        prompt = [{"role": "user", "content": f"What is {a} + {b}?"}]
        right, wrong, none = f"{a + b}.", f"{(a + b) % 9 + 1}.", "None" + ", sorry" * (place % 2) + "."
        rows["demonstrations"].append({"messages": [*prompt, {"role": "assistant", "content": right}]})
        rows["prompts"].append({"id": f"{a}+{b}", "prompt": prompt, "answer": str(a + b)})
        ranking = [[0], [1], [2]] if place % 3 else [[0], [1, 2]]
        split = "train" if place % 6 else "heldout"
        responses = [right, wrong, none]
        rows["comparisons"].append({"prompt": prompt, "responses": responses, "ranking": ranking, "split": split})
        rows["thumbs"].append({"prompt": prompt, "completion": responses[place % 3], "label": place % 3 == 0})
    for name, those in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in those), encoding="utf-8")
    read = {"sft": "demonstrations", "reward": "preferences", "dpo": "preferences", "ipo": "preferences",
            "kto": "feedback", "ppo": "prompts", "grpo": "prompts"}
    return [f"{stage}.{setting}={json.dumps(str(folder))}" for stage, setting in read.items()]


def measured(folder: Path, *overrides: str) -> dict[str, Any]:
    """Run the recipe in ``folder``, and read the curves, and what the finished models say, from what it wrote."""
    (folder / "rows").mkdir()
    artifacts = trivium.run(HERE / "recipe.yaml", [f"out={folder}", *write_fixed_rows(folder / "rows"), *overrides])
    found: dict[str, Any] = {}
    for stage, names in LOGGED.items():
        place = artifacts[stage].folder
        lines = [json.loads(line) for line in (place / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        found[stage] = {name: [rounded(line[name]) for line in lines] for name in names}
        model = trivium.load(place)
        said = (model.score(ASKED), model.shift) if stage == "reward" else model.log_probs(ASKED)
        found[stage]["model"] = [rounded(value) for value in said]
        if stage in ("ppo", "grpo"):
            found[stage]["sample"] = [line["sample"] for line in lines]
    ranked = (artifacts["preferences"].folder / "comparisons.jsonl").read_text(encoding="utf-8").splitlines()
    found["preferences"] = {name: [json.loads(line)[name] for line in ranked] for name in ("responses", "ranking")}
    return found


def rounded(value: float) -> float:
    """Six digits after the point, and no minus before a zero."""
    return round(float(value), 6) + 0.0


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run of the recipe gives now."""
    return measured(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("stage", LOGGED)
def test_the_curves_are_the_golden_ones(found: dict[str, Any], stage: str) -> None:
    """Every number of the log, and what the finished model says of a fixed conversation."""
    golden = json.loads(CURVES.read_text(encoding="utf-8"))[stage]
    assert found[stage].keys() == golden.keys()
    other = "other tokens were sampled: no number after them can be compared"
    assert found[stage].get("sample") == golden.pop("sample", None), other
    for name, values in golden.items():
        assert found[stage][name] == pytest.approx(values, rel=TOLERANCE[stage], abs=TOLERANCE[stage]), name


def test_the_answers_and_their_rankings_are_the_golden_ones(found: dict[str, Any]) -> None:
    """The stage `preferences`, whose rankings no other stage reads here."""
    assert found["preferences"] == json.loads(CURVES.read_text(encoding="utf-8"))["preferences"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found_now = measured(Path(place))
    stages = []
    for stage, curves in found_now.items():
        lines = [f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in curves.items()]
        stages.append(f" {json.dumps(stage)}: {{\n" + ",\n".join(lines) + "\n }")
    CURVES.write_text("{\n" + ",\n".join(stages) + "\n}\n", encoding="utf-8")
