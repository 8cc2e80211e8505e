"""A reward as a setting.

In recipes the setting ``reward`` names any of them::

    reward: reward                     # a stage, or the folder of a reward model
    reward: number                     # a checker: world, rubric, number, exact, rouge_l ...
    reward: mychecks.py:score          # a function of your own
    reward: http://127.0.0.1:8000/score
    reward:                            # a weighted sum, each term under a name of your own
      helpful: {model: reward, weight: 1.0}
      short: {function: mychecks.py:short, weight: 0.2}
      judge: {endpoint: {address: "http://127.0.0.1:8000/score"}, weight: 0.5}
    reward:                            # an ensemble of reward models
      liked: {models: [reward-1, reward-2, reward-3], combine: worst}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from trivium.evaluation.checkers import CHECKS
from trivium.extensions import Code, CodeMarker, file_of, resolve
from trivium.stage import Input, InputMarker
from trivium.stages.endpoint import AddressSettings, check_address

FUNCTION_SECONDS = 10.0
"""The time that a function of the user's own may take for the responses to one prompt, unless a setting says more."""


class RewardEndpoint(AddressSettings):
    """An address that scores responses. It is sent ``{"row": ..., "responses": [K texts], "finished": [K booleans],
    "tokens": [K counts]}`` by POST for each prompt, and replies ``{"scores": [K numbers]}``."""

    address: str
    """Such as http://127.0.0.1:8000/score. It is not left for another one that it redirects to."""


class RewardTerm(BaseModel):
    """One term of a weighted sum: a model, an ensemble of models, a function or an endpoint."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), frozen=True)

    model: Input | None = None
    """A reward model."""
    models: list[Input] = []
    """Reward models that are asked together, two or more, such as some that were trained with other seeds."""
    combine: Literal["mean", "worst", "uncertainty"] = "mean"
    """How `models` are combined for each response: their mean; the worst score of any; or their mean less
    `uncertainty` times the variance among them (Coste et al. 2024)."""
    uncertainty: float = Field(0.1, ge=0, allow_inf_nan=False)
    """What the variance among `models` is multiplied by with `combine: uncertainty`, in 1/points."""
    function: Code | None = None
    """`world`, `rubric`, or a checker of the row's `answer`: `number`, `exact`, `contains`, `choice`, `rouge_1`,
    `rouge_2`, `rouge_l`, `bleu`, `chrf`; `instructions`, of the row's `instruction_id_list`; `by_row`, of its own
    `check`; `sound`, 0 for what is empty, repeats itself or misses what the row is `about`; or FILE.py:FUNCTION with
    FUNCTION(row, responses) -> K numbers. It may take a third argument `finished`, which of the responses ended, and
    `tokens`, how many tokens each has."""
    endpoint: RewardEndpoint | None = None
    """An address that scores responses."""
    weight: float = Field(1.0, allow_inf_nan=False)
    """What its scores are multiplied by."""
    seconds: float = Field(FUNCTION_SECONDS, gt=0)
    """The time that a function of your own may take for the responses to one prompt."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        given = (self.model, self.models or None, self.function, self.endpoint)
        if sum(one is not None for one in given) != 1:
            raise ValueError("a term of a reward is one of `model`, `models`, `function` and `endpoint`")
        if len(self.models) == 1:
            raise ValueError("an ensemble has two `models` or more; name a single one as `model`")
        if not self.models and (unused := self.model_fields_set & {"combine", "uncertainty"}):
            raise ValueError(f"`{min(unused)}` says how several `models` are combined; name them, or leave it out")
        if "uncertainty" in self.model_fields_set and self.combine != "uncertainty":
            raise ValueError("`uncertainty` weighs the variance with `combine: uncertainty`; say that, or leave it out")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what only ensembles have, so that what other rewards taught is found again, and what was written is
        read again."""
        found: dict[str, Any] = serialize(self)
        unused = () if self.combine == "uncertainty" else ("uncertainty",)
        for name in unused if self.models else ("models", "combine", "uncertainty"):
            found.pop(name, None)
        return found


class RewardMarker(InputMarker):
    """Marks a setting that names a reward: an earlier stage or a folder, unless it is a checker, a function or an
    address."""

    def is_input(self, text: str) -> bool:
        """Whether a reward's name is that of a stage or a folder."""
        return text not in CHECKS and file_of(resolve(text, "rewards")) is None and "://" not in text


def check_name(text: str) -> str:
    """A reward in one word. Raises :class:`ValueError` for an address that is not http(s), and for a file of code
    without the name of a function in it."""
    if "://" in text:
        return check_address(text)
    file, py, name = text.partition(".py")
    if py and (not name or (name.startswith(":") and not name[1:].isidentifier())):
        raise ValueError(f"{text!r} is a file of code; name a function in it as {file}.py:NAME")
    return text


RewardName = Annotated[str, AfterValidator(check_name), RewardMarker(), CodeMarker()]
"""A reward in one word."""

RewardSetting = Annotated[
    Annotated[RewardName, Tag("<name>")] | Annotated[dict[str, RewardTerm], Field(min_length=1), Tag("<terms>")],
    Discriminator(lambda given: "<name>" if isinstance(given, str) else "<terms>")]
"""A reward in one word, or the terms of a weighted sum by names of the user's own."""


def terms_of(setting: str | Mapping[str, RewardTerm]) -> dict[str, RewardTerm]:
    """A setting's terms; one without a name where it is one word."""
    if not isinstance(setting, str):
        return dict(setting)
    kind = "model" if RewardMarker().is_input(setting) else "endpoint" if "://" in setting else "function"
    given = {"address": setting} if kind == "endpoint" else setting
    return {"": RewardTerm.model_validate({kind: given})}


def has_model(setting: str | Mapping[str, RewardTerm]) -> bool:
    """Whether a reward is a model, or a sum with one in it."""
    return any(term.model is not None or term.models for term in terms_of(setting).values())


def model_places(setting: str | Mapping[str, RewardTerm] | None, place: Any) -> dict[str, list[Path]]:
    """The folders of a reward's models by the names of their terms; ``place`` is the setting's entry in
    ``Context.inputs``."""
    if isinstance(setting, Mapping):
        return {name: place[name]["models"] if term.models else [place[name]["model"]]
                for name, term in setting.items() if term.model is not None or term.models}
    return {"": [place]} if setting is not None and RewardMarker().is_input(setting) else {}
