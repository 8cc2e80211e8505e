"""A model under evaluation: its folder, and how it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation import likelihood
from trivium.files import read_json
from trivium.generation.engine import Sampling, generate
from trivium.model import LanguageModel, RewardModel
from trivium.model import folder as model_folder
from trivium.model.gguf.read import opened
from trivium.tokenizer.chat import ChatTokenizer

Progress = Callable[[int, int, str], None]
"""Called with how much is done, how much there is, and what it is."""
Messages = list[dict[str, Any]]


def silent(done: int, total: int, text: str) -> None:
    """Report no progress."""


@dataclass
class EvaluatedModel:
    """A language model under evaluation."""

    folder: Path
    language_model: LanguageModel
    tokenizer: ChatTokenizer
    chat: bool
    """Whether it ends its turns: then it is asked by chat messages."""
    seed: int = 0
    progress: Progress = silent

    @staticmethod
    def load(folder: Path, seed: int = 0, progress: Progress = silent,
             device: torch.device | str = "cpu") -> EvaluatedModel:
        """Read a model's folder. Raises :class:`TriviumError` for a reward model."""
        folder = opened(folder)
        model = model_folder.load(folder)
        if not isinstance(model, LanguageModel):
            raise TriviumError(f"{folder}: a reward model does not write; name a language model")
        tokenizer = ChatTokenizer.load(folder)
        ends = model_folder.read_config(folder)[1].get("eos_token_id")
        chat = tokenizer.end_id in (ends if isinstance(ends, list) else [ends])
        return EvaluatedModel(folder, model.to(device).eval(), tokenizer, chat, seed, progress)

    @staticmethod
    def check(folder: Path) -> None:
        """Raise :class:`TriviumError` for what is no language model's folder."""
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")) and \
                folder.suffix != ".gguf":
            fault = "no model here (config.json is missing)" if folder.is_dir() else "no such folder"
            raise TriviumError(f"{folder}: {fault}; name the folder of a model, such as runs/mine/sft")
        config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
        if any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
            raise TriviumError(f"{folder}: a reward model does not write; name a language model")

    def longest_prompt(self, max_new_tokens: int) -> int:
        """The number of tokens that a prompt may have so that ``max_new_tokens`` fit after it."""
        return self.language_model.config.max_positions - max_new_tokens

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float = 0.0,
                 samples: int = 1, stop: Iterable[str] = (), what: str = "", top_p: float = 1.0) -> list[list[str]]:
        """``samples`` texts after each prompt of token ids, each cut off at the texts of ``stop``."""
        stops = list(stop)
        special = {self.tokenizer.end_id, self.tokenizer.document_id}
        ending = [self.tokenizer.end_id, self.tokenizer.document_id]
        sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens, stop=tuple(stops), top_p=top_p,
                            seed=randomness.derive(self.seed, "examine"))
        groups = generate(self.language_model, [list(prompt) for prompt in prompts], sampling, ending, samples,
                          progress=lambda done, total: self.progress(done, total, what), decode=self.tokenizer.decode)
        return [[cut_at(self.tokenizer.decode([token for token in one.tokens if token not in special]), stops)
                 for one in group] for group in groups]

    def answer(self, prompts: Sequence[Messages], max_new_tokens: int, what: str, temperature: float = 0.0,
               samples: int = 1) -> list[list[str] | None]:
        """``samples`` answers to each prompt of chat messages; None where a prompt is too long for the model. A model
        that does not chat is asked in text."""
        tokens = [self._encode(messages) for messages in prompts]
        fitting = [index for index, ids in enumerate(tokens) if len(ids) <= self.longest_prompt(max_new_tokens)]
        texts = self.generate([tokens[index] for index in fitting], max_new_tokens, temperature, samples,
                              () if self.chat else ("\n",), what)
        answers: list[list[str] | None] = [None] * len(prompts)
        for index, group in zip(fitting, texts, strict=True):
            answers[index] = group
        return answers

    def _encode(self, messages: Messages) -> list[int]:
        """Chat messages as a prompt of token ids."""
        if self.chat:
            return self.tokenizer.encode_chat(messages, generation_prompt=True)[0]
        text = "".join(f"{'Question' if message['role'] == 'user' else 'Answer'}: {message['content']}\n"
                       for message in messages)
        return self.tokenizer.started(self.tokenizer.encode(text + "Answer:"))


def cut_at(text: str, stops: Iterable[str]) -> str:
    """The text before the first of ``stops``."""
    return text[:min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def reward_scores(folder: Path, answers: Sequence[tuple[Messages, str]]) -> list[float]:
    """The score that the reward model in ``folder`` gives to each ``(prompt, answer)``.

    Raises :class:`TriviumError` for a folder with a language model."""
    folder = opened(folder)
    model = model_folder.load(folder)
    if not isinstance(model, RewardModel):
        raise TriviumError(f"{folder}: a language model, where a reward model was expected to judge")
    tokenizer = ChatTokenizer.load(folder)
    parted = [tokenizer.encode_answer(prompt, text) for prompt, text in answers]
    return likelihood.reward_scores(model, [prompt for prompt, _ in parted], [said for _, said in parted])
