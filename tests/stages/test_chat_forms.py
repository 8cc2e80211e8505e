"""Reasoning, tools and templates in every stage that learns from chats: what carries loss, and what a run does."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import trivium
from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.model import LanguageModel, ModelConfig
from trivium.model import folder as model_folder
from trivium.planning.inspection import tokens_of
from trivium.recipe.load import load_recipe
from trivium.stages.finetuning.sft import conversation
from trivium.stages.models import answer_tree
from trivium.stages.preferences.kto import check_thumb
from trivium.stages.preferences.rankings import check_ranking
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.named import text_of

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SAID = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
TOOLS = [{"type": "function", "function": {"name": "double", "parameters": {"type": "object"}}}]


def chat(n, answer):
    return [{"role": "user", "content": f"{n}+{n}"}, {"role": "assistant", "content": answer}]


def thought(n):
    return f"<think>\ntwice {n}\n</think>\n\n{2 * n}"


def called(n):
    call = {"type": "function", "function": {"name": "double", "arguments": {"n": n}}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A base whose template is like Qwen3's, and the same without a template."""
    root = tmp_path_factory.mktemp("bases")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(["twice the user assistant system"] * 9, trainers.BpeTrainer(
        vocab_size=320, special_tokens=[AddedToken(token, special=True) for token in SPECIAL], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in SAID])
    for name, template in (("qwen3", text_of("qwen3")), ("bare", None)):
        (root / name).mkdir()
        tokenizer.save(str(root / name / "tokenizer.json"))
        (root / name / "tokenizer_config.json").write_text(json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
            | ({"chat_template": template} if template else {})))
        model_folder.save(LanguageModel(ModelConfig(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=32, num_layers=1, num_heads=2,
            num_kv_heads=1, head_dim=16, max_positions=1024)).initialise(0), root / name,
            {"eos": 0, "pad": 0})
    return root


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows with reasoning, and with tools, for every stage."""
    root = tmp_path_factory.mktemp("rows")
    write_rows(root / "sft.jsonl", [
        *({"messages": chat(n, thought(n))} for n in range(4)),
        *({"messages": [chat(n, "")[0], called(n), {"role": "tool", "content": str(2 * n)},
                        {"role": "assistant", "content": f"It is {2 * n}."}], "tools": TOOLS} for n in range(4))])
    prompts = [chat(n, "")[:1] for n in range(6)]
    write_rows(root / "pairs" / "comparisons.jsonl", [
        {"id": f"p{n}", "prompt": prompt, "responses": [thought(n), called(n) if n % 2 else "no"],
         "ranking": [[0], [1]], "split": "train", **({"tools": TOOLS} if n % 2 else {})}
        for n, prompt in enumerate(prompts)])
    write_rows(root / "thumbs.jsonl", [
        {"prompt": prompt, "completion": called(n) if n % 2 else thought(n), "label": n % 3 == 0,
         **({"tools": TOOLS} if n % 2 else {})} for n, prompt in enumerate(prompts)])
    return root


def recipe(tmp_path, **stages):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({"name": "run", "out": str(tmp_path), "stages": stages}))
    return path


def settings(bases, rows, precision="float32"):
    common = {"model": str(bases / "qwen3"), "rows": 4, "length": 1024, "precision": precision}
    return {"sft": {**common, "demonstrations": str(rows / "sft.jsonl"), "epochs": 1},
            "dpo": {**common, "preferences": str(rows / "pairs"), "epochs": 1},
            "reward": {**common, "preferences": str(rows / "pairs"), "epochs": 1},
            "kto": {**common, "feedback": str(rows / "thumbs.jsonl"), "epochs": 1}}


ONE_THOUGHT = "<think>\ntwice 2\n</think>\n\n4<|im_end|>"


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward", "kto"])
def test_think_blocks_and_calls_are_learned_alike_everywhere(bases, rows, tmp_path, stage):
    found = list(tokens_of(load_recipe(recipe(tmp_path, **{stage: settings(bases, rows)[stage]})), stage, 0))
    said = "".join(token["text"] for token in found if token["loss"])
    whole = "".join(token["text"] for token in found)
    assert ONE_THOUGHT in whole and "<think>\n\n</think>\n\n<think>" not in whole
    call = '<tool_call>\n{"name": "double", "arguments": {"n": 1}}\n</tool_call><|im_end|>'
    assert call in whole and "# Tools" in whole and "# Tools" not in said
    if stage != "reward":  # whose loss is taken at responses' ends
        assert said.count(call) >= 1 and "<tool_response>" not in said
        assert all(text in said for text in (ONE_THOUGHT, call))


def test_every_stage_trains_on_them(bases, rows, tmp_path, precision):
    stages = settings(bases, rows, precision)
    trivium.run(recipe(tmp_path, **stages))
    for stage in stages:
        assert text_of("qwen3") in ChatTokenizer.load(tmp_path / "run" / stage).template


def test_the_last_answer_alone(bases):
    tokenizer = ChatTokenizer.load(bases / "qwen3")
    messages = [*chat(1, "2"), *chat(2, "4")]

    def learned(**more):
        tree = conversation(tokenizer, messages, **more)
        return tokenizer.decode([*tree.responses[0][tree.loss[0]]])

    assert learned() == "2<|im_end|><think>\n\n</think>\n\n4<|im_end|>"
    assert learned(last_alone=True) == "<think>\n\n</think>\n\n4<|im_end|>"
    messages[3]["train"] = False
    assert learned() == "2<|im_end|>"
    with pytest.raises(TriviumError, match="no message of the assistant carries loss"):
        learned(last_alone=True)


def test_a_template_begins_a_chat_model_of_a_base(bases, rows, tmp_path, capsys):
    (tmp_path / "mine.jinja").write_text(text_of("chatml"))
    for name, template in (("a", "chatml"), ("b", str(tmp_path / "mine.jinja"))):
        stage = settings(bases, rows)["sft"] | {"model": str(bases / "bare"), "template": template,
                                                "system": "Be kind."}
        (tmp_path / name).mkdir()
        trivium.run(recipe(tmp_path / name, sft=stage))
        tokenizer = ChatTokenizer.load(tmp_path / name / "run" / "sft")
        said = tokenizer.render(chat(1, "2"))
        assert said.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n1+1")
        assert json.loads((tmp_path / name / "run/sft/generation_config.json").read_text())["eos_token_id"] == [2, 0]
    (tmp_path / "mine.jinja").write_text(text_of("qwen3"))
    before = (tmp_path / "b/run/sft/manifest.json").read_text()
    trivium.run(tmp_path / "b/recipe.yaml")
    assert (tmp_path / "b/run/sft/manifest.json").read_text() != before  # the file's bytes belong to the key
    with pytest.raises(TriviumError, match=r"llama3: the vocabulary has no .*<\|eot_id\|>.* one of plain, chatml"):
        trivium.run(recipe(tmp_path, sft=settings(bases, rows)["sft"] | {"template": "llama3"}))
    with pytest.raises(TriviumError, match="there is no template 'qwen'; did you mean 'qwen3'"):
        load_recipe(recipe(tmp_path, sft={"template": "qwen"}))


def test_a_template_begins_a_chat_in_every_stage_that_learns_from_chats(bases, rows, tmp_path):
    write_rows(tmp_path / "prompts.jsonl", [{"id": f"q{n}", "prompt": f"{n}+{n}", "answer": f"{2 * n}"}
                                            for n in range(4)])
    begun = {"model": str(bases / "bare"), "template": "chatml", "system": "Be kind."}
    learning = {"prompts": str(tmp_path / "prompts.jsonl"), "iterations": 1, "episodes": 2,
                "max_new_tokens": 4, "precision": "float32", **begun}
    stages = {name: stage | begun for name, stage in settings(bases, rows).items() if name != "sft"}
    path = recipe(tmp_path, **stages, ppo=learning, grpo=learning | {"samples": 2, "checker": "number"})
    for stage in ("dpo", "reward", "kto"):
        assert "".join(token["text"] for token in tokens_of(load_recipe(path), stage, 0)).startswith(
            "<|im_start|>system\nBe kind.")
    trivium.run(path)
    for stage in (*stages, "ppo", "grpo"):
        said = ChatTokenizer.load(tmp_path / "run" / stage).render(chat(1, "2"))
        assert said.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n1+1")


def test_responses_share_their_prompt(bases):
    tokenizer = ChatTokenizer.load(bases / "qwen3")
    row = {"id": "x", "prompt": chat(1, "")[:1], "tools": TOOLS}
    responses = ["2", thought(1), called(1), "\n\n2"]
    tree = answer_tree(tokenizer, row, responses, [True, False, True, True])
    for said, response, done in zip(tree.responses, responses, [True, False, True, True], strict=True):
        prompt, answer = tokenizer.encode_answer(row["prompt"], response, TOOLS)
        assert [*tree.prompt, *said] == prompt + (answer if done else answer[:-1])


@pytest.mark.parametrize(("response", "said"), [
    (3, "response 2 is neither a text nor a message of the assistant"),
    ({"role": "user", "content": "x"}, "response 2 is neither a text nor a message"),
    ({"content": "", "tool_calls": [{}]}, "response 2: tool call 1 has no function with a name")])
def test_responses_that_are_none_are_told(response, said):
    with pytest.raises(TriviumError, match=said):
        check_ranking({"responses": ["a", response], "ranking": [[0], [1]]})
    with pytest.raises(TriviumError, match=said.replace("response 2", "the completion")):
        check_thumb({"completion": response, "label": True})
