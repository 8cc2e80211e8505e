"""KTO against TRL's KTOTrainer on human comparisons (HH) taken apart into thumbs, one Llama of 6.8M parameters.

    python benchmarks/kto.py [--quick] [--rounds 3] [--data FOLDER]
"""

from pathlib import Path

import preferences


def thumbs(data: Path) -> preferences.Rows:
    """Every comparison as a liked and a disliked response."""
    return [{"prompt": row["prompt"], "completion": row[key], "label": key == "chosen"}
            for row in preferences.human_pairs(data) for key in ("chosen", "rejected")]


CASES = [{
    "label": "thumbs", "task": "kto", "rows": thumbs, "expand": list, "each": 1, "length": 512, "batch": 4,
    "unit": "responses/s", "goal": 6.0, "tuned_goal": None
}]

if __name__ == "__main__":
    preferences.main("kto", __doc__ or "", __file__, CASES)
