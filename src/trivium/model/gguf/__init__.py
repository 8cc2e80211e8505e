"""GGUF files, which llama.cpp and what is built on it read: weights, shape, tokenizer and chat template in one file."""

from trivium.model.gguf.write import Written as Written
from trivium.model.gguf.write import write_gguf as write_gguf
