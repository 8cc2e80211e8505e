"""Losses that users bring: what they are called with is checked before training, what they return in every update."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trivium.errors import TriviumError, nearest


def file_of_function(function: Any) -> Path | None:
    """The file of a user's function; None for one of Trivium's own, and for one that has no file."""
    module = getattr(function, "__module__", None) or ""
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if module.startswith("trivium.") or not file else Path(file)


def check_signature(name: str, function: Any, arguments: Sequence[str], options: Mapping[str, object]) -> None:
    """Raise :class:`TriviumError` where a function cannot be called with these positional ``arguments`` and, by
    keyword, with these ``options``."""
    called = f"({', '.join(arguments)})"
    if not callable(function):
        raise TriviumError(f"{name}: it is no function of {called}, but {function!r:.80}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # such as a function of C: what it returns is checked
    parameters = list(signature.parameters.values())
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        known = option_names(function, len(arguments))
        unknown = next((option for option in options if option not in known), None)
        if unknown is not None:
            raise TriviumError(f"{name}: it has no option {unknown!r}" +
                               (nearest(unknown, known) if known else f"; it takes {called} alone"))
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        raise TriviumError(f"{name}: {error}; it is called with {called} and its options, and takes {signature}"
                           ) from error


def option_names(function: Any, arguments: int) -> list[str]:
    """The parameters of a function after its first positional ``arguments`` that can be given by keyword."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    positional = [parameter for parameter in parameters
                  if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)]
    return [parameter.name for parameter in positional[arguments:] if parameter.kind is not parameter.POSITIONAL_ONLY
            ] + [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def pair_losses(name: str, function: Callable[..., Any], scores: Sequence[Tensor], *settings: float | Tensor,
                **options: Any) -> Tensor:
    """What ``function(*scores, *settings, **options)`` returns: a loss for each pair ``[P]``, where the ``scores`` are
    ``[P]`` each.

    Raises :class:`TriviumError` with the ``name`` for a function that raises, for a result of another shape, for one
    that no gradient flows through, and for losses that are not finite though all scores are."""
    try:
        losses = function(*scores, *settings, **options)
    except (TriviumError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise TriviumError(f"{name}: {type(error).__name__}: {error}") from error
    pairs = scores[0].shape
    if not isinstance(losses, Tensor) or losses.shape != pairs:
        found = f"shape {list(losses.shape)}" if isinstance(losses, Tensor) else repr(type(losses).__name__)
        raise TriviumError(f"{name}: a loss for each of the {pairs[0]} pairs was expected, "
                           f"shape {list(pairs)}, not {found}")
    if torch.is_grad_enabled() and scores[0].requires_grad and not losses.requires_grad:
        raise TriviumError(f"{name}: no gradient flows through its losses; compute them with PyTorch, undetached")
    contents = type(losses) is Tensor  # those that memory is estimated with have none
    if contents and not torch.isfinite(losses).all() and all(bool(torch.isfinite(each).all()) for each in scores):
        raise TriviumError(f"{name}: a loss is not finite, though all that it was computed from is")
    return losses
