"""Where a prompt ends and a choice begins: lm-evaluation-harness's rule, for every kind of tokenizer."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

from trivium.errors import TriviumError
from trivium.evaluation.likelihood import split_at, split_chat
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task
from trivium.model import LanguageModel, ModelConfig
from trivium.stages.models import save_model
from trivium.tokenizer.chat import ChatTokenizer

TEXTS = ["Which of them floats? A cork or a stone. Answer: a cork\n", "哪一个会浮起来？软木塞。答案：软木塞\n"] * 20
SPECIAL = ["<unk>", "<s>", "</s>"]
CHATML = ("{% for m in messages %}{{ '[' + m['role'] + ']\\n' + m['content'] + '</s>\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '[assistant]\\n' }}{% endif %}")


def trained(kind):
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), \
            decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, show_progress=False,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>",
                                          show_progress=False)
    elif kind == "whole texts":  # as Llama 2's: no borders of words at all, a merge may cross spaces
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=SPECIAL, show_progress=False)
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "isolated")
        trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    if kind in ("unigram", "whole texts"):  # these begin each text with a token of their own
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    return tokenizer


KINDS = ["bytes", "unigram", "whole texts", "pieces"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    places = {}
    for kind in KINDS:
        places[kind] = folder = tmp_path_factory.mktemp(kind.replace(" ", "-"))
        source = folder / "source"
        source.mkdir()
        trained(kind).save(str(source / "tokenizer.json"))
        (source / "tokenizer_config.json").write_text(json.dumps({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
            "unk_token": "<unk>", "chat_template": CHATML}))
        tokenizer = ChatTokenizer.load(source)
        config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=24, num_layers=1,
                             num_heads=1, num_kv_heads=1, head_dim=16, max_positions=200)
        save_model(LanguageModel(config).initialise(5), tokenizer, folder)
    return places


def harness_pair(encode, context, continuation):
    """The rule, word for word as the harness documents it: trailing spaces move over, the whole is encoded, and the
    continuation is what lies behind as many tokens as the context has."""
    moved = context[len(context.rstrip()):]
    context = context.rstrip()
    whole = encode(context + moved + continuation)
    return encode(context), whole[len(encode(context)):]


texts = st.text(st.sampled_from(list("abcorkAns:?软木塞答案  \n\t　")), max_size=14)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(context=texts, continuation=texts)
def test_every_tokenizer_is_cut_by_the_harness_rule(folders, kind, context, continuation):
    tokenizer = ChatTokenizer.load(folders[kind])
    theirs = AutoTokenizer.from_pretrained(folders[kind])
    encode = lambda text: theirs.encode(text, add_special_tokens=False)  # noqa: E731
    assert split_at(tokenizer, context, continuation) == harness_pair(encode, context, continuation)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [" ", "\n", " \n", "　", ""])
def test_a_prompt_that_ends_in_white_space_is_scored_as_the_harness_does(folders, tmp_path, oracle_log_prob, kind, end):
    rows = [{"prompt": f"Which {what}?{end}", "choices": ["a cork", "软木塞", "stone"], "answer": 1}
            for what in ("floats", "of them", "会浮")]
    lead = "" if end else " "
    (tmp_path / "task.yaml").write_text(
        "kind: choice\ndata: rows.jsonl\nform: text\nshots: 1\nintro: 'Answer: '\n"
        f'separator: "\\n"\nlead: "{lead}"\n')
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task(tmp_path / "task.yaml")
    model = EvaluatedModel.load(folders[kind])
    result = task.examine(tmp_path / "task.yaml", model)
    oracle, theirs = (kind_of.from_pretrained(folders[kind]) for kind_of in (AutoModelForCausalLM, AutoTokenizer))
    encode = lambda text: theirs.encode(text, add_special_tokens=False)  # noqa: E731
    start = theirs.encode("")  # what it puts before a text
    assert len(start) == (kind in ("unigram", "whole texts"))
    items = task.items(tmp_path / "task.yaml", task.data, 0)
    pool = task.example_pool(tmp_path / "task.yaml", items, 0)
    for item, made in zip(items, result.rows, strict=True):
        shown = task.choose_examples(item, pool, 0)[0]
        context = f"Answer: {shown.prompt}{lead}软木塞\n{item.prompt}"
        for choice, found in zip(item.row["choices"], made["log_probs"], strict=True):
            before, after = harness_pair(encode, context, lead + choice)
            with torch.no_grad():
                assert found == pytest.approx(oracle_log_prob(oracle.eval(), [*start, *before], after), abs=2e-3)
        totals = made["log_probs"]
        by_length = [total / len(choice) for total, choice in zip(totals, item.row["choices"], strict=True)]
        assert made["score_per_character"] == float(by_length.index(max(by_length)) == 1)
    assert "accuracy_per_character" in result.metrics


@pytest.mark.parametrize("kind", KINDS)
def test_a_choice_in_a_chat_is_what_the_whole_conversation_has(folders, kind):
    tokenizer = ChatTokenizer.load(folders[kind])
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "stone"},
                {"role": "user", "content": "And now? "}]
    context, said = split_chat(tokenizer, messages, "a cork")
    whole = [*messages, {"role": "assistant", "content": "a cork"}]
    theirs = AutoTokenizer.from_pretrained(folders[kind]).apply_chat_template(whole, tokenize=True, return_dict=False)
    assert theirs[:len(context) + len(said) + 1] == [*context, *said, tokenizer.end_id]
    assert tokenizer.decode(said).replace("▁", " ").replace("##", "").split()


def test_a_choice_without_a_token_of_its_own_is_refused(folders, tmp_path):
    (tmp_path / "task.yaml").write_text("kind: choice\ndata: rows.jsonl\nform: text\nlead: ''\n")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "An", "choices": ["s", "swer"], "answer": 0}) + "\n")
    model = EvaluatedModel.load(folders["whole texts"])
    lone = [len(split_at(model.tokenizer, "An", choice)[1]) for choice in ("s", "swer")]
    assert 0 in lone  # both texts are one token, as "An" is
    with pytest.raises(TriviumError, match=r"rows\.jsonl: row 1: choice \d \('s.*'\) has no token of its own"):
        load_task(tmp_path / "task.yaml").examine(tmp_path / "task.yaml", model)
