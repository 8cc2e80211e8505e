"""Reward modelling against TRL's RewardTrainer: rankings of nine answers (AlpacaEval), and of two (HH).

    python benchmarks/reward.py [--quick] [--rounds 3] [--data FOLDER]

One Llama of 6.8M parameters. TRL is given every ranking as all its pairs; we encode each response once and each prompt once.
"""

import preferences

CASES = [
    {"label": "K = 9", "task": "reward", "rows": preferences.rankings_of_nine, "their_rows": lambda data: preferences.expanded(preferences.rankings_of_nine(data)),
     "each": 36, "length": 2048, "batch": 1, "unit": "rankings/s", "goal": 20.0, "tuned_goal": None},
    {"label": "K = 2", "task": "reward", "rows": lambda data: [{"prompt": row["prompt"], "responses": [row["chosen"], row["rejected"]]}
                                                              for row in preferences.human_pairs(data)],
     "their_rows": preferences.human_pairs, "each": 1, "length": 512, "batch": 4, "unit": "rankings/s", "goal": 5.0, "tuned_goal": None},
]

if __name__ == "__main__":
    preferences.main("reward", __doc__ or "", __file__, CASES)
