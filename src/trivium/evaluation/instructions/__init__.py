"""Instructions that code can check (Zhou et al. 2023, IFEval): whether a response follows them, strictly and
loosely."""
