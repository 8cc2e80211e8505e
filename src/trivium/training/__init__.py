"""Batches, optimizers, checkpoints and the one training loop."""
