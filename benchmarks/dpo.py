"""DPO against TRL's DPOTrainer on human comparisons (HH), one Llama of 6.8M parameters.

    python benchmarks/dpo.py [--quick] [--rounds 3] [--data FOLDER]

Both sides compute the reference's log-probabilities in every step here; a stage of ours computes them once for all
epochs.
"""

import preferences

CASES = [{
    "label": "pairs", "task": "dpo", "rows": preferences.human_pairs, "expand": list, "each": 1, "length": 512,
    "batch": 4, "unit": "pairs/s", "goal": 10.0, "tuned_goal": 5.0
}]

if __name__ == "__main__":
    preferences.main("dpo", __doc__ or "", __file__, CASES)
