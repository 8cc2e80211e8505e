"""Faults that pydantic finds in settings, in plain words. It is given what ``ValidationError.errors()`` lists, and
imports nothing of pydantic itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trivium.errors import nearest

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a setting that there is not."""

MISSING = ("missing", "missing_argument")

KINDS = {
    "int": "a whole number", "float": "a number", "decimal": "a number", "finite_number": "a finite number",
    "bool": "true or false", "string": "a text", "list": "a list", "tuple": "a list", "set": "a list",
    "dict": "a mapping of settings", "mapping": "a mapping of settings", "model": "a mapping of settings",
    "dataclass": "a mapping of settings", "none_required": "null", "is_instance_of": "of another kind",
    "path": "a path", "url": "an address", "union_tag": "a text, or a mapping of settings",
}
"""What a setting must be, by what pydantic's name of the fault begins with."""

BOUNDS = {"greater_than_equal": ("at least", "ge"), "greater_than": ("more than", "gt"),
          "less_than_equal": ("at most", "le"), "less_than": ("less than", "lt"),
          "multiple_of": ("a multiple of", "multiple_of")}
"""How numbers are bounded, and where pydantic keeps the bound."""

SIZES = {"too_short": ("at least", "min_length"), "too_long": ("at most", "max_length"),
         "string_too_short": ("at least", "min_length"), "string_too_long": ("at most", "max_length")}
"""How the sizes of lists and texts are bounded."""

LONGEST = 80
"""Characters of a value that are shown."""


def explain(faults: Sequence[Mapping[str, Any]], values: Any, prefix: str,
            known: Callable[[Sequence[str | int]], Iterable[str]]) -> str:
    """The first fault in ``values`` as one line. ``known(place)`` are the settings that there are at a place."""
    place, found = first(faults, values)
    where = (prefix + ".".join(map(str, place))).rstrip(".")
    fault = found[0]
    if fault["type"] in UNKNOWN:
        return f"{where}: unknown setting{hint(str(place[-1]), list(known(place[:-1])))}"
    if fault["type"] in MISSING:
        return f"{where}: this setting is needed"
    close = ""
    if fault["type"] == "literal_error" and len(found) == 1 and isinstance(fault["input"], str):
        words = [word.strip(" '") for word in fault["ctx"]["expected"].replace(" or ", ", ").split(",")]
        close = nearest(fault["input"], words)
    return f"{where}{in_words(found)}{close if 'did you mean' in close else ''}"


ELSEWHERE = {
    "dataset": ("demonstrations", "preferences", "feedback", "prompts"), "data": ("demonstrations", "preferences"),
    "train_file": ("demonstrations", "preferences"), "dataset_name": ("demonstrations", "preferences"),
    "model_name_or_path": ("model",), "base_model": ("model",), "lr": ("optimization.learning_rate",),
    "batch_size": ("rows",), "per_device_train_batch_size": ("rows",), "train_batch_size": ("rows",),
    "max_length": ("length",), "max_seq_length": ("length",), "cutoff_len": ("length",), "sequence_len": ("length",),
    "num_train_epochs": ("epochs",), "num_epochs": ("epochs",), "max_steps": ("steps", "epochs"),
    "lora": ("adapter",), "lora_r": ("adapter.rank",), "lora_rank": ("adapter.rank",), "num_generations": ("samples",),
    "bf16": ("precision",), "fp16": ("precision",), "dtype": ("precision",),
    "gradient_accumulation_steps": ("parallel.rows",), "eval_steps": ("evaluate_every",),
    "warmup_ratio": ("optimization.warmup",), "lr_scheduler_type": ("optimization.schedule",),
}
"""What other trainers call settings, and what is like them here."""


def hint(word: str, known: Sequence[str]) -> str:
    """What may have been meant by a setting that there is not: a setting of a group inside, what another trainer calls
    so, the nearest name, or all names."""
    inside = [name for name in known if name.endswith(f".{word}")]
    like = inside or [name for name in ELSEWHERE.get(word, ()) if name in known][:1]
    return f"; did you mean {like[0]!r}?" if like else nearest(word, [name for name in known if "." not in name])


def first(faults: Sequence[Mapping[str, Any]], values: Any) -> tuple[list[str | int], list[Mapping[str, Any]]]:
    """The place of the first fault within ``values``, and all that was found at it: of a setting that may be several
    things, what each of them would need. Where one of them got further than the others, its fault is the one."""
    places = [place_of(fault, values) for fault in faults]
    start = places[0]
    inside = [(place, fault) for place, fault in zip(places, faults) if place[:len(start)] == start]
    deeper = next((place for place, _ in inside if len(place) > len(start)), start)
    return deeper, [fault for place, fault in inside if place == deeper]


def place_of(fault: Mapping[str, Any], values: Any) -> list[str | int]:
    """Where a fault lies: pydantic's location without the names of the forms that a value was tried as."""
    place: list[str | int] = []
    for number, part in enumerate(fault["loc"]):
        last = number == len(fault["loc"]) - 1
        named = isinstance(values, Mapping) and part in values
        placed = isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values)
        if named or placed:
            place.append(part)
            values = values[part]
        elif last and (fault["type"] in (*MISSING, *UNKNOWN) or (isinstance(values, Mapping) and
                       fault["type"] == "value_error" and str(part).isidentifier() and str(part).islower())):
            place.append(part)  # a setting that is not given, whose default does not go with the others
    return place


def in_words(faults: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong at one place, such as ``is "many"; it must be a whole number``: the words after the setting's
    name."""
    said = next((fault for fault in faults if fault["type"] in ("value_error", "assertion_error")), None)
    if said is not None:
        words = said["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return f" {words}" if words.startswith("is ") else f": {words}"
    given = faults[0]["input"]
    wanted = list(dict.fromkeys(wanted_by(fault) for fault in faults))
    if len(wanted) > 1 and "a finite number" in wanted:
        wanted = [one for one in wanted if one != "a finite number"]
    return f" is {shown(given)}; it must be {either(wanted)}"


def wanted_by(fault: Mapping[str, Any]) -> str:
    """What pydantic wanted in the place of what it was given."""
    kind, context = str(fault["type"]), fault.get("ctx", {})
    if kind in BOUNDS:
        words, key = BOUNDS[kind]
        return f"{words} {context[key]:g}" if isinstance(context[key], float) else f"{words} {context[key]}"
    if kind in SIZES:
        words, key = SIZES[kind]
        many, unit = context[key], "character" if kind.startswith("string") else "entry"
        plural = unit if many == 1 else {"character": "characters", "entry": "entries"}[unit]
        return f"a {'text' if unit == 'character' else 'list'} of {words} {many} {plural}"
    if kind in ("literal_error", "enum"):
        return "one of " + str(context["expected"]).replace(" or ", ", ").replace("'", "")
    if kind == "string_pattern_mismatch":
        return f"a text of the form {context['pattern']}"
    if kind == "union_tag_invalid":
        return "one of " + str(context["expected_tags"]).replace("'", "")
    found = next((words for begins, words in KINDS.items() if kind.startswith(begins)), None)
    return found or str(fault["msg"]).removeprefix("Input should be ").removeprefix("a valid ")


def either(wanted: Sequence[str]) -> str:
    """``a, b or c``."""
    return wanted[0] if len(wanted) == 1 else f"{', '.join(wanted[:-1])} or {wanted[-1]}"


def shown(value: Any) -> str:
    """A value as a recipe would write it, cut where it is long."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= LONGEST else text[:LONGEST - 1] + "…"
