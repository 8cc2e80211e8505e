"""The adapter for lm-evaluation-harness, through its own ``simple_evaluate``, beside its ``hf`` model on the same
folder."""

from __future__ import annotations

import json

import pytest

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
{rest}
"""
KINDS = {
    "choosing": """output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]""",
    "reading": """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: bits_per_byte}, {metric: word_perplexity}]""",
    "writing": """output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]""",
}


@pytest.mark.long
@pytest.mark.parametrize("name", ["base", "chat"])
def test_simple_evaluate_gives_the_numbers_of_the_hf_model(models, tmp_path, monkeypatch, name):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from trivium.evaluation.harness import HarnessModel

    rows = [{
        "question": f"What does Ana sell on day {i}? " + "Perhaps many things. " * (i % 4) * 6,
        "choices": ["kites", "a clock or two", "nothing"], "answer": i % 3
    } for i in range(12)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    for task, rest in KINDS.items():
        (tmp_path / "tasks" / f"{task}.yaml").write_text(TASK.format(name=task, file=file, rest=rest))
    found = [
        lm_eval.simple_evaluate(model=model, tasks=list(KINDS),
                                task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
                                bootstrap_iters=0, apply_chat_template=name == "chat", log_samples=True)
        for model in (HarnessModel(models[name]),
                      HFLM(pretrained=str(models[name]), device="cpu", batch_size=4, dtype="float32"))
    ]
    for task in KINDS:
        ours, theirs = (result["results"][task] for result in found)
        numbers = [key for key, value in theirs.items() if isinstance(value, float)]
        assert numbers
        for key in numbers:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4), (task, key)
        for mine, other in zip(found[0]["samples"][task], found[1]["samples"][task], strict=True):
            if task == "choosing":
                assert [value[0][0]
                        for value in mine["resps"]] == pytest.approx([value[0][0] for value in other["resps"]],
                                                                     abs=1e-3)
            elif task == "writing":
                assert mine["resps"] == other["resps"]
