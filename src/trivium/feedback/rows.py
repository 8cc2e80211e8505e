"""Rows that come in, checked: items, judgements and demonstrations. Every fault is a :class:`TriviumError` that says
what is wrong."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import Any

from trivium.errors import TriviumError, nearest
from trivium.feedback.pictures import apart
from trivium.feedback.settings import FLAGS, RATINGS, SKIPS
from trivium.files import Row
from trivium.tokenizer.chat import check_messages

MOST_RESPONSES = 26
LONGEST_TEXT = 200_000
LONGEST_ID = 200
MOST_MARKS = 200


def canonical(value: Any) -> str:
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def prompt_key(prompt: Sequence[Row]) -> str:
    """A prompt's identity: the same messages have it in every project."""
    return hashlib.sha256(canonical([[m["role"], m["content"]] for m in prompt]).encode()).hexdigest()


def split_of(key: str, heldout: float) -> str:
    """``"heldout"`` for that share of the prompts, ``"train"`` for the others: a function of the prompt alone, so a
    prompt is on the same side in every project and every export, however often it is asked."""
    return "heldout" if int(key[:13], 16) / 16**13 < heldout else "train"


def text(value: Any, name: str, longest: int = LONGEST_TEXT, empty: bool = False) -> str:
    """A text that can be stored."""
    if not isinstance(value, str):
        raise TriviumError(f"{name} is not a text")
    if not empty and not value.strip():
        raise TriviumError(f"{name} is empty")
    if len(value) > longest:
        raise TriviumError(f"{name} has {len(value):,} characters, more than {longest:,}")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise TriviumError(f"{name} holds characters that are no text")
    return value


_ALIKE = str.maketrans("асеорхуівкмнтгзѕјԁԛԝ" "ɑαοενικτρυω" "01|!ıi",
                       "aceopxylbkmhtr3sjdqw" "aaoevlktpuw" "olllll")
"""Letters of other scripts, and digits, that are drawn as Latin letters are."""


def look_of(name: str) -> str:
    """What two names have in common that look alike: upper and lower case, letters of other scripts and other forms of
    the same letter are as one."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    kept = (letter for letter in plain if not "\u0300" <= letter <= "\u036f" and unicodedata.category(letter) != "Cf")
    return " ".join("".join(kept).translate(_ALIKE).split())


def messages(value: Any, last: str | None = None, pictured: Set[int] = frozenset()) -> list[Row]:
    """Chat messages with role and content alone; a plain text is one message of the user's. Messages that are
    ``pictured``, by their numbers from 0, need no text."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise TriviumError("the prompt is neither a text nor a list of messages")
    for number, message in enumerate(value, 1):
        if isinstance(message, Mapping) and isinstance(message.get("content"), list):
            raise TriviumError(f"message {number} is made of parts, such as pictures; a prompt to judge may have "
                               "them, here there is text alone")
    check_messages(value)
    if last and value[-1]["role"] != last:
        raise TriviumError(f"the last message is not the {last}'s")
    return [{"role": m["role"], "content": text(m["content"], f"message {number}",
                                                empty=m["role"] == "system" or number - 1 in pictured)}
            for number, m in enumerate(value, 1)]


def item(row: Mapping[str, Any]) -> Row:
    """A row to import, as an item: ``prompt``, and for a comparison ``responses``; optionally ``id``, ``known`` (the
    true ranking), ``scores`` (``[models, K]`` of an ensemble), ``batch``, ``deadline`` and ``source``."""
    known_fields = ("id", "prompt", "responses", "known", "scores", "source", "task", "truth", "models", "finished",
                    "batch", "deadline")
    if "prompt" not in row:
        alike = difflib.get_close_matches("prompt", map(str, row), 1)
        raise TriviumError("the field `prompt` is missing" + (f"; call {alike[0]!r} so" if alike else ""))
    given, shown = apart(row["prompt"])
    prompt = messages(given, pictured={picture.message for picture in shown})
    if prompt[-1]["role"] == "assistant":
        raise TriviumError("the prompt ends with the assistant's message; nothing is left to answer")
    result: Row = {"kind": "compare" if row.get("responses") is not None else "write", "prompt": prompt}
    if result["kind"] == "compare":
        result["responses"] = responses(row["responses"])
        for name in ("models", "finished"):
            if row.get(name) is not None:
                if not isinstance(row[name], list) or len(row[name]) != len(result["responses"]):
                    raise TriviumError(
                        f"`{name}` does not have one value for each of the {len(result['responses'])} responses")
                result[name] = row[name]
        if row.get("known") is not None:
            result["known"] = ranking(row["known"], len(result["responses"]))
        if row.get("scores") is not None:
            result["scores"] = scores(row["scores"], len(result["responses"]))
    if shown:
        result["pictures"] = [{"message": picture.message, "picture": picture.name} for picture in shown]
    identity = row.get("id")
    if identity is None:
        identity = hashlib.sha256(canonical([prompt, result.get("responses"), *result.get("pictures", [])]
                                            ).encode()).hexdigest()[:16]
    elif isinstance(identity, bool) or not isinstance(identity, str | int):
        raise TriviumError("the `id` is neither a text nor a whole number")
    result["item"] = text(str(identity), "the `id`", LONGEST_ID)
    for name in ("source", "task", "truth"):
        if row.get(name) is not None:
            result[name] = row[name]
    if row.get("batch") is not None:
        result["batch"] = text(row["batch"], "the `batch`", LONGEST_ID)
    if row.get("deadline") is not None:
        result["deadline"] = moment(row["deadline"])
    unknown = sorted(set(map(str, row)) - set(known_fields))
    if unknown:
        result["more"] = {name: row[name] for name in unknown}
    canonical(result).encode()  # anything that is no text is found here
    return result


def moment(value: Any) -> float:
    """A time of ISO 8601, in seconds since the epoch: UTC where it names no zone, and a date alone is its last second.
    """
    try:
        plain = str(value).strip()
        at = datetime.fromisoformat(plain)
        if len(plain) == len("2030-12-31"):
            at += timedelta(days=1, seconds=-1)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise TriviumError(f"{str(value)[:40]!r} is no time; write it as in 2030-12-31 or 2030-12-31T18:00Z") from error


def responses(value: Any) -> list[str]:
    """Two or more different, nonempty texts."""
    if not isinstance(value, list):
        raise TriviumError("`responses` is not a list of texts")
    texts = [text(one, f"response {number}") for number, one in enumerate(value)]
    if len(texts) < 2:
        raise TriviumError(f"{'one response' if texts else 'no response'} only; there is nothing to compare it with")
    if len(texts) > MOST_RESPONSES:
        raise TriviumError(f"{len(texts)} responses are more than {MOST_RESPONSES}")
    for place, one in enumerate(texts):
        if one in texts[:place]:
            raise TriviumError(f"responses {texts.index(one)} and {place} are the same")
    return texts


def scores(value: Any, count: int) -> list[list[float]]:
    """Numbers ``[models, K]`` of an ensemble."""
    if not isinstance(value, list) or not value or not all(isinstance(line, list) for line in value):
        raise TriviumError("`scores` is not a list of each model's list of scores")
    for number, line in enumerate(value):
        if len(line) != count:
            raise TriviumError(f"model {number} of `scores` has {len(line)} scores for {count} responses")
        if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in line):
            raise TriviumError(f"model {number} of `scores` has a value that is no finite number")
    return [[float(x) for x in line] for line in value]


def ranking(value: Any, count: int, tied: bool = False) -> list[list[int]]:
    """Groups of response indices, best first, that name each of ``count`` responses once. With ``tied`` all may be one
    group."""
    if not isinstance(value, list) or not all(isinstance(group, list) and group for group in value):
        raise TriviumError("the ranking is not a list of groups, as in [[0], [2, 1]]")
    named = [index for group in value for index in group]
    if not all(isinstance(index, int) and not isinstance(index, bool) for index in named):
        raise TriviumError("the ranking names something that is not a response's number")
    for index in named:
        if not 0 <= index < count:
            raise TriviumError(f"the ranking names response {index}, but there are {count}, numbered from 0")
    if len(set(named)) < len(named):
        raise TriviumError(f"the ranking names response {next(i for i in named if named.count(i) > 1)} twice")
    if len(named) < count:
        raise TriviumError(f"the ranking leaves out response {min(set(range(count)) - set(named))}")
    if len(value) < 2 and not tied:
        raise TriviumError(
            "all responses are tied: there is no preference in it; say `all bad`, or skip with the reason no_difference"
        )
    return [sorted(group) for group in value]


def marks(value: Any, lengths: Sequence[int], kinds: Sequence[str]) -> list[list[Row]]:
    """The marks on each response, ``{"start", "end", "kind"}`` in characters, in their order."""
    if value is None:
        return [[] for _ in lengths]
    if not isinstance(value, list) or len(value) != len(lengths) or not all(isinstance(one, list) for one in value):
        raise TriviumError(f"`marks` does not have one list for each of the {len(lengths)} responses")
    result: list[list[Row]] = []
    for number, (given, length) in enumerate(zip(value, lengths)):
        if len(given) > MOST_MARKS:
            raise TriviumError(f"response {number} has {len(given)} marks, more than {MOST_MARKS}")
        found = set()
        for one in given:
            if not isinstance(one, Mapping) or set(one) != {"start", "end", "kind"}:
                raise TriviumError(f"a mark on response {number} is no object of start, end and kind")
            start, end, kind = one["start"], one["end"], one["kind"]
            if not all(isinstance(at, int) and not isinstance(at, bool) for at in (start, end)) or not (
                    0 <= start < end <= length):
                raise TriviumError(f"a mark on response {number} goes from {start!r} to {end!r} of {length} characters")
            if kind not in kinds:
                raise TriviumError(f"unknown kind of error {str(kind)[:60]!r}{nearest(str(kind)[:60], kinds)}")
            found.add((start, end, kind))
        result.append([{"start": start, "end": end, "kind": kind} for start, end, kind in sorted(found)])
    return result


def judgement(row: Mapping[str, Any], lengths: Sequence[int], needs_ratings: bool = True,
              kinds: Sequence[str] = ()) -> Row:
    """A judgement of responses of these ``lengths``: ``ranking``, ``ratings`` 1 to 7, ``flags`` and ``marks`` of each
    response (their kinds being of ``kinds``), ``all_bad``, ``note``.

    One who says `all bad` need not rank or rate; what is left out is then one tied group, and no ratings."""
    count, all_bad = len(lengths), row.get("all_bad", False)
    if not isinstance(all_bad, bool):
        raise TriviumError("`all_bad` is neither true nor false")
    ranked, rated = row.get("ranking"), row.get("ratings")
    if ranked is None:
        if not all_bad:
            raise TriviumError("the field `ranking` is missing")
        ranked = [list(range(count))]
    if rated is None:
        if needs_ratings and not all_bad:
            raise TriviumError("the field `ratings` is missing")
    elif not isinstance(rated, list) or len(rated) != count:
        raise TriviumError(f"`ratings` does not have one number for each of the {count} responses")
    else:
        for index, one in enumerate(rated):
            if isinstance(one, bool) or not isinstance(one, int) or one not in RATINGS:
                raise TriviumError(
                    f"response {index} has the rating {json.dumps(one)[:20]}; ratings are whole numbers from 1 to 7")
    flags = row.get("flags") or [[] for _ in range(count)]
    if not isinstance(flags, list) or len(flags) != count or not all(isinstance(one, list) for one in flags):
        raise TriviumError(f"`flags` does not have one list for each of the {count} responses")
    for one in flags:
        for flag in one:
            if flag not in FLAGS:
                raise TriviumError(f"unknown flag {str(flag)[:40]!r}{nearest(str(flag)[:40], FLAGS)}")
    return {
        "ranking": ranking(ranked, count, tied=all_bad), "ratings": rated, "flags": [sorted(set(one)) for one in flags],
        "all_bad": all_bad, "note": text(row.get("note") or "", "the note", 4000, empty=True),
        "marks": marks(row.get("marks"), lengths, kinds)
    }


def reason(value: Any) -> str:
    """A reason to skip."""
    if value not in SKIPS:
        raise TriviumError(f"unknown reason {str(value)[:40]!r}{nearest(str(value)[:40], SKIPS)}")
    return str(value)


def seconds(value: Any, most: float = 86_400.0) -> float | None:
    """A time that somebody claims to have taken, within what is possible; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return round(min(float(value), most), 1)
