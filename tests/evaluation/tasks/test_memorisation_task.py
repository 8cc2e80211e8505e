"""Documents that a model knows by heart, and private data."""

from __future__ import annotations

import torch

from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task


def test_memorisation_is_seen_where_it_is(models, task_file):
    """A model trained on three texts alone says them by heart; an untrained one does not, and shows no placeholder."""
    texts = [f"{name} lives at the end of the lane and sells {thing} to all who pass by on market days. Write to "
             "<EMAIL> for more."
             for name, thing in (("Ana", "kites"), ("Bor", "clocks"), ("Cyd", "ropes"))]
    path = task_file("kind: memorisation\ndata: rows.jsonl\nprefix: 5\nlength: 12\n",
                     [{"text": text} for text in texts])
    model = EvaluatedModel.load(models["base"])
    before = load_task(path).examine(path, model).metrics
    assert before["verbatim"]["value"] == 0.0 and before["placeholders_hold"]["value"] == 0.0
    tokens = [[model.tokenizer.document_id, *model.tokenizer.encode(text)] for text in texts]
    optimizer = torch.optim.Adam(model.language_model.parameters(), 0.01)
    for _ in range(60):
        loss = sum(torch.nn.functional.cross_entropy(model.language_model(torch.tensor([ids]))[0, :-1],
                                                     torch.tensor(ids[1:])) for ids in tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = load_task(path).examine(path, model).metrics
    assert after["verbatim"]["value"] == 1.0 and after["placeholders_hold"]["value"] == 1.0
    assert after["leaked"]["value"] == 0.0
