"""Lesson 4: which word comes next? The vocabulary as classes: from counts to a tiny Transformer."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trivium import randomness
from trivium.lessons.lesson import Classification, Epochs, Examples, curve, learn, split
from trivium.lessons.page import Heading, Piece, Table, Text, lines, write_numbers, write_page
from trivium.model import LanguageModel, ModelConfig
from trivium.stage import Context, Stage
from trivium.stages.pretraining.pretrain import LanguageModeling
from trivium.training.batch import Tree
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import prepare
from trivium.training.optimizers import Optimization
from trivium.world.documents import documents
from trivium.world.town import Town


class NextWord(Stage):
    """Predict the next word."""

    kind: ClassVar[str] = "next-word"
    documents_bytes: int = Field(1_000_000, ge=20_000)
    """Bytes of text from the embedded world."""
    vocabulary: int = Field(1000, ge=10)
    """Words, the most frequent ones; all others are one class of their own."""
    context: int = Field(4, ge=1)
    """Words that the small network looks back at."""
    steps: int = Field(700, ge=1)
    """Updates of each network."""
    length: int = Field(128, ge=16)
    """Words in a row of the Transformer, which looks back at all of its document."""

    def run(self, context: Context) -> dict[str, Any]:
        """The lesson, top to bottom."""
        prepare(context.threads)
        # 1. Texts, as numbers of words.
        texts = [
            words_of(document.text) for document in documents(Town(context.seed), context.seed, self.documents_bytes)
        ]
        common = Counter(word for text in texts for word in text).most_common(self.vocabulary - 2)
        names = ["(rare word)", "(start)", *(word for word, _ in common)]
        number = {word: i for i, word in enumerate(names)}
        ids = [
            np.array([START, *(number.get(word, UNKNOWN) for word in text)][:self.length], np.int64) for text in texts
            if text
        ]
        size = len(names)
        chosen, kept = split(len(ids), 0.1, context.seed)
        train, heldout = [ids[i] for i in chosen], [ids[i] for i in kept]
        losses: dict[str, float] = {"all words alike": math.log(size)}
        # 2. Counts: no learning at all, only a table. With more words before, fewer cases have been seen.
        for order, name in ((0, "counts of words"), (1, "counts after one word"), (2, "counts after two words")):
            counts = Counts(order, size, train)
            losses[name] = counts.loss(heldout)
        # 3. The network of the last lesson, with words for pixels.
        seen, unseen = windows(train, self.context), windows(heldout, self.context)
        every = max(1, self.steps // 10)
        optimization = Optimization("adamw", 3e-3, schedule="cosine", clip=1.0)
        torch.manual_seed(randomness.derive(context.seed, "windowed") % 2**63)
        small = Windowed(size, self.context)
        outcome = learn(small, Classification(), Epochs(seen, 1024, context.seed), self.steps, optimization, context,
                        "window", [unseen], every)
        losses[f"a network over {self.context} words"] = outcome.metrics["validation_loss"]
        # 4. A tiny Transformer: every word looks back at all words before it. Nothing of the loss or of the loop is
        # new.
        start = np.array([START], np.int64)
        trees = [[Tree(start, (text[1:],)) for text in part if len(text) > 1] for part in (train, heldout)]
        config = ModelConfig(vocab_size=size, hidden_size=128, intermediate_size=256, num_layers=2, num_heads=4,
                             num_kv_heads=4, head_dim=32, max_positions=self.length)
        model = LanguageModel(config).initialise(randomness.derive(context.seed, "transformer"))
        batches, unseen_rows = (PackedEpochs(part, self.length, 12, context.seed) for part in trees)
        validation = [batch for step in range(unseen_rows.steps_per_epoch) for batch in unseen_rows(step)]
        outcome = learn(model, LanguageModeling(), batches, self.steps,
                        Optimization("muon", 4e-3, 0.02, newton_schulz=3, schedule="cosine"), context, "transformer",
                        validation, every)
        losses["a tiny Transformer"] = outcome.metrics["validation_loss"]
        # 5. What they say after the same words.
        numbers = {
            "vocabulary": size, "training_words": int(sum(len(text) - 1 for text in train)),
            "unseen_words": int(sum(len(text) - 1 for text in heldout)), "loss": losses,
            "perplexity": {name: math.exp(loss)
                           for name, loss in losses.items()}, "parameters": {
                               "network": sum(p.numel() for p in small.parameters()),
                               "transformer": sum(p.numel() for p in model.parameters())
                           }, "guesses": guesses(model.eval(), heldout, names)
        }
        write_page(context, ("Which word comes next?", "下一个词是什么？"), page(numbers, context))
        return write_numbers(context, numbers)


UNKNOWN, START = 0, 1
"""The class of all rare words, and the mark of a document's beginning."""


def words_of(text: str) -> list[str]:
    """Words and marks, in lower case."""
    return re.findall(r"\w+(?:'\w+)?|[^\w\s]", text.lower())


def windows(texts: list[np.ndarray], size: int) -> Examples:
    """Every word of the texts, and the ``size`` words before it."""
    padded = [np.concatenate([np.full(size - 1, START), text]) for text in texts]
    rows = np.concatenate([np.lib.stride_tricks.sliding_window_view(text[:-1], size) for text in padded])
    return Examples(torch.from_numpy(rows.copy()), torch.from_numpy(np.concatenate([text[1:] for text in texts])))


class Counts:
    """Counting: how often each word followed the last ``order`` words. What was never seen is asked of one word less
    (interpolated, with the weight of Witten & Bell 1991): p(w | h) = (c(h w) + k(h)·p(w | shorter h)) / (c(h) + k(h)),
    where k(h) is how many different words followed h."""

    def __init__(self, order: int, size: int, texts: list[np.ndarray]) -> None:
        self.order, self.size = order, size
        self.followers: list[dict[tuple[int, ...], Counter[int]]] = [{} for _ in range(order + 1)]
        for text in texts:
            for i in range(1, len(text)):
                for n in range(min(order, i) + 1):
                    self.followers[n].setdefault(tuple(text[i - n:i].tolist()), Counter())[int(text[i])] += 1

    def probability(self, before: tuple[int, ...], word: int) -> float:
        """p(word | before)."""
        p = 1 / self.size
        for n in range(min(self.order, len(before)) + 1):
            seen = self.followers[n].get(before[len(before) - n:])
            if seen is None:
                break
            total, kinds = seen.total(), len(seen)
            p = (seen[word] + kinds * p) / (total + kinds)
        return p

    def loss(self, texts: list[np.ndarray]) -> float:
        """The mean of -log p(word) in nats."""
        nats = [-math.log(self.probability(tuple(text[max(0, i - self.order):i].tolist()), int(text[i])))
                for text in texts for i in range(1, len(text))]
        return math.fsum(nats) / len(nats)


class Windowed(nn.Module):
    """The digits' network for words (Bengio et al. 2003): each of the last few words is looked up as a vector, the
    vectors are put side by side, a hidden layer, a score for every word."""

    def __init__(self, size: int, context: int, width: int = 48, hidden: int = 192) -> None:
        super().__init__()
        self.look_up = nn.Embedding(size, width)
        self.hidden = nn.Linear(context * width, hidden)
        self.scores = nn.Linear(hidden, size)

    def forward(self, words: Tensor) -> Tensor:
        """Scores ``[N, size]`` for the words ``[N, context]`` before."""
        return self.scores(self.hidden(self.look_up(words).flatten(1)).relu())


@torch.no_grad()
def guesses(model: LanguageModel, texts: list[np.ndarray], names: list[str], count: int = 6) -> list[dict[str, Any]]:
    """What the Transformer finds likeliest next in some unseen texts."""
    found = []
    for text in [text for text in texts if len(text) > 16][:count]:
        p = model(torch.from_numpy(text[None, :14]))[0, -1].softmax(0)
        found.append({"before": " ".join(names[i] for i in text[1:14]), "next": names[text[14]],
                      "guesses": [[names[int(i)], float(p[i])] for i in p.topk(3).indices]})
    return found


UNSEEN = ("loss on unseen text (nats a word)", "未见文本上的损失（每词 nat）")
CHINESE = {"all words alike": "所有词一视同仁", "counts of words": "词的计数",
           "counts after one word": "看一个词的计数", "counts after two words": "看两个词的计数",
           "a network over few words": "看少数几个词的网络",
           "a tiny Transformer": "很小的 Transformer"}


def page(numbers: dict[str, Any], context: Context) -> list[Piece]:
    """What the lesson shows."""
    losses = numbers["loss"]
    best = losses["counts after two words"]
    return [
        Text((
            "To write is to choose the next word, again and again. That is classification: words in, one of "
            f"{numbers['vocabulary']:,} classes out. "
            f"{numbers['training_words']:,} words to learn from, {numbers['unseen_words']:,} to be tested on.",
            f"写作就是一次又一次地选择下一个词。这是分类：输入词，输出 {numbers['vocabulary']:,} 个类别之一。"
            f"用来学习的有 {numbers['training_words']:,} 个词，用来检验的有 {numbers['unseen_words']:,} 个。")),
        Heading(("From counting to learning", "从计数到学习")),
        Table((("model", "模型"), UNSEEN, ("as good as choosing among so many words", "相当于在这么多词里挑选")),
             [((name, CHINESE.get(name, CHINESE["a network over few words"])), f"{loss:.3f}",
               f"{numbers['perplexity'][name]:.1f}") for name, loss in losses.items()]),
        Text((
            "Counting says what usually follows. After two words it knows more than after one, "
            "but most longer beginnings were never seen. A network treats alike what is alike, "
            "so it can use more of what came before; a Transformer looks back at the whole document.",
            "计数说出通常接着什么。看两个词比看一个词知道得多，但更长的开头大多从未出现过。"
            "网络对相似的东西一视同仁，所以能用上更多的前文；Transformer 则能回看整篇文档。")),
        lines(
            {
                "a network over few words": curve(context, "window", "validation_loss"), "a tiny Transformer": curve(
                    context, "transformer", "validation_loss"),
                "counts after two words": ([1, curve(context, "window", "validation_loss")[0][-1]], [best, best])
            }, ("step", "步"), UNSEEN, chinese=CHINESE),
        Heading(("What it would say", "它会说什么")),
        Table((("text so far", "已有的文本"), ("the Transformer's guesses", "Transformer 的猜测"),
               ("what stands there", "实际的词")),
             [(row["before"], ", ".join(f"{word} {p:.0%}" for word, p in row["guesses"]), row["next"])
              for row in numbers["guesses"]]),
        Text(("A large language model is this, with more words, more layers, and much more to read.",
              "大语言模型就是这样，只是词更多、层更多、读得多得多。")),
    ]
