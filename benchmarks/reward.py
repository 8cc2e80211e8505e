"""Reward modeling against TRL's RewardTrainer: rankings of nine answers (AlpacaEval), and of two (HH).

    python benchmarks/reward.py [--quick] [--rounds 3] [--only K9 | K2] [--data FOLDER]

One Llama of 6.8M parameters, the same rows, all of which fit on both sides. TRL is given every ranking as all its
pairs; we encode each response once and each prompt once. How much of the ratio that makes is measured too: the same
loop with a prompt for each response, and with pairs like TRL's.
"""

import preferences

CASES = [
    {
        "label": "K9", "task": "reward", "rows": preferences.rankings_of_nine, "expand": preferences.expanded,
        "each": 36, "length": 2048, "batch": 1, "unit": "rankings/s", "goal": 20.0, "tuned_goal": None
    },
    {
        "label": "K2", "task": "reward", "rows": lambda data: preferences.as_rankings(preferences.human_pairs(data)),
        "expand": preferences.expanded, "each": 1, "length": 512, "batch": 4, "unit": "rankings/s", "goal": 5.0,
        "tuned_goal": None
    },
]

if __name__ == "__main__":
    preferences.main("reward", __doc__ or "", __file__, CASES)
