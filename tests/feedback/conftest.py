"""What the tests of feedback have in common; see annotating.py."""

from annotating import project, quick_passwords, served, store, visit

__all__ = ["project", "quick_passwords", "served", "store", "visit"]
