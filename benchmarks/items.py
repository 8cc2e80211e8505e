"""How quick the lead's table of items is: a generated project, asked over HTTP in many ways.

    python benchmarks/items.py --items 100000
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from trivium.feedback.accounts import Accounts
from trivium.feedback.database import APPEND
from trivium.feedback.store import Store
from trivium.feedback.web import COOKIE, create_app

ASKED = {
    "everything": "", "the 1,000th page": "page=999", "least agreement": "sort=agreement", "one person": "person=3",
    "a person's flag": "person=3&flag=harmful", "a rating": "rating=7&sort=-rating", "disputed": "state=disputed",
    "a note": "noted=1&sort=skips", "an id": "q=item-777", "a rare word": "q=word1234",
    "a word in a third of the items": "q=word30", "a word in every item": "q=question",
    "Chinese in every item": "q=世界", "two letters": "q=wo", "a word and a flag": "q=word30&flag=harmful",
    "nothing": "q=zebra"
}


def generated(count: int) -> Iterator[dict[str, Any]]:
    """Comparisons of three responses, of words as frequent as those of a language."""
    rng = random.Random(0)

    def text(length: int) -> str:
        return " ".join(f"word{min(19_999, int(rng.paretovariate(0.6)))}" for _ in range(length))
    for i in range(count):
        yield {"id": f"item-{i}", "prompt": f"Question {i}? {text(20)}",
               "responses": [f"a {text(40)}", f"b {text(40)}", f"c 你好世界 {text(30)}"]}


def answer(store: Store, share: float = 0.75) -> None:
    """Two judgements of a share of the items, written as events at once."""
    rng, now = random.Random(1), time.time()
    people = [store.add_person(f"person {i}") for i in range(10)]
    with store._appending(durable=False) as connection:
        leases: list[dict[str, Any]] = []
        judgements: list[dict[str, Any]] = []
        with store.state() as state:
            names, first = list(state.items), state.last + 1
        for name in names[:int(share * len(names))]:
            for person in rng.sample(people, 2):
                order = rng.sample(range(3), 3)
                said = {"work": first + len(leases), "ranking": [[place] for place in order],
                        "ratings": [rng.randint(1, 7) for _ in order],
                        "flags": [["harmful"] if rng.random() < 0.02 else [] for _ in order], "all_bad": False,
                        "note": "worth a look" if rng.random() < 0.1 else "", "seconds": 10.0, "late": False}
                lease = {"kind": "compare", "item": name, "order": order, "why": "random", "until": now + 60}
                leases.append({"at": now, "kind": "lease", "who": person, "body": json.dumps(lease)})
                judgements.append({"at": now, "kind": "judgement", "who": person, "body": json.dumps(said)})
        for start in range(0, len(leases), 500):
            connection.execute(APPEND, leases[start:start + 500])
        for start in range(0, len(judgements), 500):
            connection.execute(APPEND, judgements[start:start + 500])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=15)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "project", create=True) as store:
        store.add_items(generated(asked.items))
        answer(store)
        store.refresh()
        token = Accounts(store).open_session(store.add_person("boss", "lead"))
        client = TestClient(create_app(store), cookies={COOKIE: token})

        def ask(query: str) -> float:
            started = time.perf_counter()
            assert client.get(f"/lead/items?{query}").status_code == 200
            return 1000 * (time.perf_counter() - started)
        print(f"the first list: {ask('') / 1000:.1f} s, the first search: {ask('q=zebra') / 1000:.1f} s")
        every = []
        for name, query in ASKED.items():
            took = [ask(query) for _ in range(asked.times)]
            every += took
            print(f"{name:32} median {np.median(took):4.0f} ms, worst {max(took):4.0f} ms")
        print(f"all: median {np.median(every):.0f} ms, p95 {np.quantile(every, 0.95):.0f} ms, "
              f"worst {max(every):.0f} ms")
        print(f"a phrase of the two commonest words: {ask('q=%22word2 word1%22'):.0f} ms")


if __name__ == "__main__":
    main()
