"""Rows that compare responses to one prompt, best first, in all the forms that preference data come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from trivium.data.row_kinds.demonstrations import (
    CONVERSATIONS,
    KINDS,
    conversation,
    dialogue_of,
    kind_of_row,
    opened,
    question,
    refuse_pictures,
    said,
    unknown,
    with_tools,
)
from trivium.data.row_kinds.fields import ASKED, Fields
from trivium.data.row_kinds.messages import Reading, check_prompt
from trivium.data.row_kinds.verdicts import FIRST, TIED, two_responses, verdict
from trivium.errors import TriviumError
from trivium.files import Row

PROMPTS: tuple[tuple[str, ...], ...] = tuple((name,) for name in ("prompt", *ASKED, *CONVERSATIONS))
Response = str | Row
"""A text or, where it calls tools or has reasoning, the assistant's message."""


def comparison(row: Row | Fields, reading: Reading | None = None) -> Row:
    """A row as ``{"prompt": messages, "responses": [...], "ranking": [...], "tools"?}``, with the ``ratings``,
    ``finished``, ``annotator`` and ``split`` that it has. Raises :class:`TriviumError` for one from which nothing can
    be learned."""
    fields = row if isinstance(row, Fields) else Fields(row)
    reading = reading or Reading()
    refuse_pictures(fields)
    fields.roles_as_columns(reading.speaker)
    for fits, read in _WAYS:
        if fits(fields):
            prompt, responses, ranking, more = read(fields, reading)
            break
    else:
        raise unknown("comparison", "give it `prompt`, `chosen` and `rejected`, or `responses` and `ranking`, or "
                      "name its `columns`", fields)
    made = with_tools({"prompt": check_prompt(prompt), "responses": responses, "ranking": ranking}, fields) | more
    check_responses(made)
    for name in ("ratings", "finished", "annotator", "split"):
        value = fields.take(name)
        if value is not None and (name != "split" or value in ("train", "heldout")):
            made[name] = value
    if "finished" in made and (not isinstance(made["finished"], list) or len(made["finished"]) != len(responses)):
        raise TriviumError(f"`finished` does not say of each of the {len(responses)} responses whether it ended")
    return made


def check_responses(row: Row) -> None:
    """Refuse responses that cannot be compared, and a ranking that does not name each once."""
    responses, ranking = row["responses"], row["ranking"]
    if not isinstance(responses, list) or not all(_says_something(response) for response in responses):
        raise TriviumError("a response is empty or not a text")
    if len(responses) < 2:
        raise TriviumError("one response only: there is nothing to compare it with")
    if len({json.dumps(response, sort_keys=True) for response in responses}) < len(responses):
        raise TriviumError("two responses are the same")
    if not isinstance(ranking, list) or not all(isinstance(group, list) for group in ranking) or sorted(
            json.dumps(index) for group in ranking for index in group) != sorted(
                json.dumps(index) for index in range(len(responses))):
        raise TriviumError(f"the ranking {ranking} does not name each of the {len(responses)} responses once, as in "
                           "[[0], [2, 1]]")
    if sum(bool(group) for group in ranking) < 2:
        raise TriviumError("all responses are tied: nothing can be learned from that")


def _says_something(response: Any) -> bool:
    if isinstance(response, dict):
        return bool(response.get("tool_calls")) or bool(str(response.get("content", "")).strip())
    return isinstance(response, str) and bool(response.strip())


Found = tuple[list[Row], list[Response], list[list[int]], Row]


def _ranked(fields: Fields, reading: Reading) -> Found:
    """``prompt``, ``responses`` and ``ranking``, as they are here."""
    responses = fields.take("responses")
    if not isinstance(responses, list):
        raise TriviumError("a response is empty or not a text")
    if "ranking" not in fields:
        raise TriviumError("the field 'ranking' is missing: which response is better is not said")
    return (_prompt(fields, reading), [response_of(said(one, "assistant", "responses", reading)) for one in responses],
            fields.take("ranking"), {})


def _chosen(fields: Fields, reading: Reading) -> Found:
    """``chosen`` and ``rejected``: answers to a prompt that is given, or whole conversations, in messages or texts."""
    return _two(fields, reading, "chosen", "rejected")


def _judged(fields: Fields, reading: Reading) -> Found:
    """Two responses under names of their own, and which of them is better."""
    names = two_responses(fields)
    assert names is not None
    better = verdict(fields)
    if better == TIED:
        raise TriviumError("all responses are tied: nothing can be learned from that")
    if kind_of_row(fields, PROMPTS) is None:
        if isinstance(fields.peek("history"), str):
            fields.rename("history", "prompt")  # SHP's posts
        elif isinstance(fields.peek("context"), list):
            fields.rename("context", "messages")  # HelpSteer 3
    return _two(fields, reading, *(names if better == FIRST else reversed(names)))


def _two(fields: Fields, reading: Reading, better: str, worse: str) -> Found:
    """The responses of two fields, the better one first."""
    values = [fields.take(better), fields.take(worse)]
    kind = kind_of_row(fields, PROMPTS)
    dialogues = [dialogue_of(value) if isinstance(value, str) and value.startswith("\n\nHuman:") else None
                 for value in values]
    turns = [messages or said(value, "assistant", name, reading)
             for name, value, messages in zip((better, worse), values, dialogues)]
    if kind is None and not any(dialogues) and all(isinstance(value, str) for value in values):
        if any(value.startswith("\n\nHuman:") for value in values):
            raise TriviumError("not a dialogue of 'Human:' and 'Assistant:' turns that ends with the assistant's")
        start, *answers = common_start(*values)
        return opened([{"role": "user", "content": start}], fields, reading), [*answers], [[0], [1]], {}
    whole = [any(message["role"] == "user" for message in messages) for messages in turns]
    if whole[0] != whole[1]:
        raise TriviumError(f"one of `{better}` and `{worse}` is a whole conversation and the other is not")
    if not whole[0]:
        if kind is None:
            raise TriviumError("there is no prompt: give it `prompt`, or whole conversations")
        responses = [response_of(messages) for messages in turns]
        return _prompt(fields, reading), responses, [[0], [1]], {}
    first, second = turns
    if first[:-1] != second[:-1]:
        raise TriviumError("the two dialogues differ before their last turn")
    responses = [response_of(messages[-1:]) for messages in turns]
    prompt = first[:-1]
    if kind is not None:
        _check_same(question(fields, kind[0], reading), prompt, first)
        prompt = prompt if prompt[0]["role"] == "system" else opened(prompt, fields, reading)
    else:
        prompt = opened(prompt, fields, reading)
    return prompt, responses, [[0], [1]], {}


def _check_same(given: list[Row], prompt: list[Row], conversation: list[Row]) -> None:
    """Refuse a prompt that is none of the conversations' beginning or end: which of them was meant is not known."""
    asked, whole, first = ([(m["role"], m["content"]) for m in messages if m["role"] != "system"]
                           for messages in (given, prompt, conversation))
    if not (asked == first or asked == whole[:len(asked)] or asked == whole[-len(asked):]):
        raise TriviumError("the prompt is not what the conversations in `chosen` and `rejected` begin with")


def _rejected_only(fields: Fields, reading: Reading) -> Found:
    """A conversation whose last answer is the better one, and ``rejected`` (ms-swift's ``rejected_response``)."""
    kind = kind_of_row(fields, KINDS)
    assert kind is not None
    messages = conversation(fields, kind, reading)
    if not messages or messages[-1]["role"] != "assistant":
        raise TriviumError("the last message is not the assistant's")
    other = said(fields.take("rejected"), "assistant", fields.called("rejected"), reading)
    if any(message["role"] == "user" for message in other):
        if [message for message in other[:-1] if message["role"] != "system"] != [
                message for message in messages[:-1] if message["role"] != "system"]:
            raise TriviumError("the two dialogues differ before their last turn")
        other = other[-1:]
    return messages[:-1], [response_of(messages[-1:]), response_of(other)], [[0], [1]], {}


def _openai(fields: Fields, reading: Reading) -> Found:
    """OpenAI's ``input`` (messages and tools), ``preferred_output`` and ``non_preferred_output``."""
    outputs = [said(fields.take(name), "assistant", name, reading)
               for name in ("preferred_output", "non_preferred_output")]
    given = fields.take("input")
    inner = Fields(given if isinstance(given, dict) else {"messages": given})
    prompt = opened(question(inner, "messages", reading), fields, reading)
    tools = with_tools({}, inner)
    reading.notes.unused.update(f"input.{name}" for name in inner.unused())
    return prompt, [response_of(messages) for messages in outputs], [[0], [1]], tools


def _scored(fields: Fields, reading: Reading) -> Found:
    """UltraFeedback: ``completions``, objects with a ``response`` and an ``overall_score``; equal scores are tied, and
    of equal responses the first counts."""
    found: dict[str, float] = {}
    for number, one in enumerate(fields.take("completions"), 1):
        inner = Fields(one)
        response = inner.take("response")
        score = next((inner.take(name) for name in ("overall_score", "score", "rating") if name in inner), None)
        if isinstance(score, str):
            score = _number(score)
        if not isinstance(response, str) or not isinstance(score, (int, float)) or isinstance(score, bool):
            raise TriviumError(f"completion {number} lacks a `response` or an `overall_score`")
        if response in found:
            reading.note("a response that another one repeats was left out")
        found.setdefault(response, float(score))
        reading.notes.unused.update(f"completions.{name}" for name in inner.unused())
    responses = list(found)
    scores = sorted(set(found.values()), reverse=True)
    ranking = [[place for place, text in enumerate(responses) if found[text] == score] for score in scores]
    return _prompt(fields, reading), list(responses), ranking, {}


def _by_rank(fields: Fields, reading: Reading) -> Found:
    """Nectar: ``answers``, objects with an ``answer`` and a ``rank`` from 1, the best."""
    ranks: list[float] = []
    texts: list[Response] = []
    for number, one in enumerate(fields.take("answers"), 1):
        inner = Fields(one)
        text, rank = inner.take("answer"), inner.take("rank")
        rank = _number(rank) if isinstance(rank, str) else rank
        if not isinstance(text, str) or not isinstance(rank, (int, float)) or isinstance(rank, bool):
            raise TriviumError(f"answer {number} lacks an `answer` or a `rank`")
        if text in texts:
            reading.note("a response that another one repeats was left out")
            continue
        texts.append(text)
        ranks.append(rank)
        reading.notes.unused.update(f"answers.{name}" for name in inner.unused())
    ranking = [[place for place, known in enumerate(ranks) if known == rank] for rank in sorted(set(ranks))]
    return _prompt(fields, reading), texts, ranking, {}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _two_outputs(fields: Fields, reading: Reading) -> Found:
    """LLaMA-Factory's older rows: ``output`` is a list, the better answer first."""
    outputs = fields.take("output")
    ranking = [[place] for place in range(len(outputs))]
    return _prompt(fields, reading), list(outputs), ranking, {}


def _prompt(fields: Fields, reading: Reading) -> list[Row]:
    kind = kind_of_row(fields, PROMPTS)
    if kind is None:
        raise TriviumError("the field 'prompt' is missing")
    return question(fields, kind[0], reading)


def response_of(messages: list[Row]) -> Response:
    """A response as a text or, where it calls tools or has reasoning, as the assistant's message. Raises
    :class:`TriviumError` for what is not one message of the assistant's."""
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise TriviumError("a response is not one message of the assistant's; what leads to it belongs into the prompt")
    message = {name: value for name, value in messages[0].items() if name not in ("train", "name")}
    content = message["content"]
    return message if {"tool_calls", "reasoning_content"} & message.keys() else content


def common_start(chosen: str, rejected: str) -> tuple[str, str, str]:
    """A prompt that two texts begin with, and what each says after it. It ends before white space or between
    characters that are written without any (trl's ``extract_prompt``, but never inside a word)."""
    place = next((place for place, (a, b) in enumerate(zip(chosen, rejected)) if a != b),
                 min(len(chosen), len(rejected)))
    while place and any(place < len(text) and _of_a_word(text[place - 1]) and _of_a_word(text[place])
                        for text in (chosen, rejected)):
        place -= 1
    if place and chosen[place - 1] == " ":
        place -= 1
    prompt = chosen[:place]
    if not prompt.strip():
        raise TriviumError("there is no prompt, and the two texts do not begin alike; give it `prompt`")
    return prompt, chosen[place:], rejected[place:]


def _of_a_word(character: str) -> bool:
    """Whether a character is part of a word that white space divides from others."""
    return (character.isalnum() or character == "_") and character < "\u2e80"


_WAYS: tuple[tuple[Callable[[Fields], bool], Callable[[Fields, Reading], Found]], ...] = (
    (lambda fields: {"chosen", "rejected"} <= fields.named, _chosen),
    (lambda fields: "responses" in fields, _ranked),
    (lambda fields: "preferred_output" in fields and "non_preferred_output" in fields, _openai),
    (lambda fields: "chosen" in fields and "rejected" in fields, _chosen),
    (lambda fields: "rejected" in fields and kind_of_row(fields, KINDS) is not None, _rejected_only),
    (lambda fields: isinstance(fields.peek("completions"), list) and all(
        isinstance(one, dict) for one in fields.peek("completions")), _scored),
    (lambda fields: two_responses(fields) is not None, _judged),
    (lambda fields: isinstance(fields.peek("answers"), list) and all(
        isinstance(one, dict) and "rank" in one for one in fields.peek("answers")), _by_rank),
    (lambda fields: isinstance(fields.peek("output"), list) and len(fields.peek("output")) > 1, _two_outputs),
)
