"""Studies: one recipe under several settings and seeds, and one table of what came of it."""
