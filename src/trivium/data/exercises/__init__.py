"""Exercises made by code: prompts whose answers code can check, in English and Chinese."""
