"""Annotators who are programs: the world's panel, reward models, and whatever else can judge. They come through the
same store as people do, with the same leases, orders and overlap. Who calls brings the models, as functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trivium.errors import TriviumError
from trivium.feedback.store import Store, Task
from trivium.files import Row

Judge = Callable[[Task, Row], Row | str]
"""Called with a task and its item; returns ``ranking``, and optionally ``ratings``, ``flags``, ``all_bad``,
``seconds``, all by the item's own numbers; or a reason to skip."""

Score = Callable[[list[Row]], float]
"""A reward model: the score of a conversation whose last message is the answer."""


def annotate(store: Store, name: str, judge: Judge, most: int | None = None, kind: str = "ai") -> int:
    """Let ``judge`` work as the annotator ``name``, who is added when new, until nothing is left or ``most`` are
    judged. Returns how many it judged."""
    person = store.person(name)
    if person is not None and person.kind == "human":
        raise TriviumError(f"{name!r} is a human annotator; give the program a name of its own")
    number = person.id if person else store.add_person(name, kind=kind)
    done = 0
    while most is None or done < most:
        task = store.next_work(number)
        if task is None:
            break
        assert task.item is not None
        judgement = judge(task, store.item(task.item))
        if isinstance(judgement, str):
            store.skip(task.id, number, judgement)
        else:
            store.judge(task.id, number, **judgement)
            done += 1
    return done


def panel(store: Store, annotators: int = 5, seed: int = 0, noise: float | None = None,
          most: int | None = None) -> dict[str, int]:
    """The embedded world's panel judges the project's items, which must carry the world's ``task`` and ``truth``; each
    annotator up to ``most``. Returns how many each one judged."""
    from trivium.world.panel import NOISE, Panel
    judges = Panel(seed, annotators, NOISE if noise is None else noise)
    with store.state() as state:
        first = next((item.id for item in state.items.values() if item.kind == "compare"), None)
    if first is not None and "truth" not in store.item(first):
        raise TriviumError(
            f"the item {first!r} has no `truth`; the world's panel can judge only the world's own prompts")

    def judge(name: str) -> Judge:
        def judgement(task: Task, item: Row) -> Row | str:
            row = {"id": item["item"], "prompt": item["prompt"], "task": item.get("task"), "truth": item["truth"]}
            result = judges.rank(row, item["responses"], name)
            if len(result["ranking"]) < 2:
                return "no_difference"
            return {field: result[field] for field in ("ranking", "ratings", "seconds")}
        return judgement
    with ThreadPoolExecutor(annotators) as pool:
        counts = pool.map(lambda name: annotate(store, name, judge(name), most, "simulated"), judges.names)
        return dict(zip(judges.names, counts))


def score_items(store: Store, models: Sequence[Score],
                progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Score every unfinished comparison by an ensemble of reward models, so that what they disagree on is asked first.
    Returns how many items were scored."""
    if len(models) < 2:
        raise TriviumError("one reward model cannot disagree with itself; name two or more")
    with store.state() as state:
        names = [
            item.id for item in state.items.values()
            if item.kind == "compare" and not item.known and len(item.judgements()) < state.wanted(item)
        ]
    started = time.monotonic()
    scored: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        item = store.item(name)
        scored.append({"id": name, "scores": [scores_of(model, item) for model in models]})
        if time.monotonic() - started > 1.0:
            progress(place + 1, len(names))
            started = time.monotonic()
    return store.add_scores(scored).added


def reward_model(store: Store, model: Score, name: str, most: int | None = None) -> int:
    """Let a reward model annotate: it ranks by its score, without ratings. Returns how many items it judged."""
    def judge(task: Task, item: Row) -> Row | str:
        scores = scores_of(model, item)
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        return {"ranking": [[index] for index in order]}
    return annotate(store, name, judge, most)


def scores_of(model: Score, item: Row) -> list[float]:
    """The scores of an item's responses, each a text or an assistant's message."""
    answers = [{"role": "assistant", "content": response} if isinstance(response, str) else response
               for response in item["responses"]]
    return [model([*item["prompt"], answer]) for answer in answers]
