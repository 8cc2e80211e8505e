"""How a model learns, from a line with two parameters to a small Transformer, each lesson a file to read from top to
bottom."""
