"""Task templates: a row of a labelled table becomes an instruction, in one of several phrasings (FLAN, Wei et al.
2022).

A recipe names one of these families or writes its own; each value is a Jinja text over the row's columns.
"""

from __future__ import annotations

import json

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict

from trivium.errors import TriviumError, nearest
from trivium.files import Row


class Phrasing(BaseModel):
    """One way to put a task: Jinja texts over the columns of a row."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    user: str
    """What is asked, such as `Is this review good or bad? {{ text }}`."""
    assistant: str
    """The answer, such as `{{ label }}`."""
    system: str | None = None
    """What the system says first, if anything."""


def _phrasings(*pairs: tuple[str, str]) -> list[Phrasing]:
    return [Phrasing(user=user, assistant=assistant) for user, assistant in pairs]


FAMILIES: dict[str, list[Phrasing]] = {
    "classification": _phrasings(
        ("{{ text }}\n\nWhich of these is it: {{ labels | join(', ') }}?", "{{ label }}"),
        ("Say whether the following is {{ labels | join(' or ') }}.\n\n{{ text }}", "{{ label }}"),
        ("Text: {{ text }}\nOptions: {{ labels | join(', ') }}\nAnswer with one option.", "{{ label }}"),
        ("How would you label this? Choose from {{ labels | join(', ') }}: {{ text }}", "{{ label }}")),
    "classification-zh": _phrasings(
        ("{{ text }}\n\n以上内容属于哪一类：{{ labels | join('、') }}？", "{{ label }}"),
        ("请判断下面这段话是{{ labels | join('还是') }}：\n{{ text }}", "{{ label }}"),
        ("内容：{{ text }}\n选项：{{ labels | join('、') }}\n请只回答一个选项。", "{{ label }}"),
        ("从{{ labels | join('、') }}中选一个来描述：{{ text }}", "{{ label }}")),
    "judgement": _phrasings(
        ("{{ premise }}\n\nDoes it follow that {{ hypothesis }}? Answer {{ labels | join(', ') }}.", "{{ label }}"),
        ("Read this: {{ premise }}\nClaim: {{ hypothesis }}\nIs the claim true ({{ labels | join('/') }})?",
         "{{ label }}"),
        ("Given that {{ premise }}, can one say that {{ hypothesis }}? ({{ labels | join(', ') }})", "{{ label }}")),
    "judgement-zh": _phrasings(
        ("{{ premise }}\n\n由此能否得出“{{ hypothesis }}”？请回答{{ labels | join('、') }}。", "{{ label }}"),
        ("已知：{{ premise }}\n判断：{{ hypothesis }}\n（{{ labels | join('/') }}）", "{{ label }}")),
    "extraction": _phrasings(("{{ text }}\n\nFrom the text above, give the {{ field }}.", "{{ value }}"),
                             ("What is the {{ field }} in this text?\n\n{{ text }}", "{{ value }}"),
                             ("Extract the {{ field }}: {{ text }}", "{{ value }}")),
    "extraction-zh": _phrasings(("{{ text }}\n\n请从上文中找出{{ field }}。", "{{ value }}"),
                                ("下面这段话里的{{ field }}是什么？\n{{ text }}", "{{ value }}")),
    "translation": _phrasings(("Translate into {{ language }}: {{ source }}", "{{ target }}"),
                              ("{{ source }}\n\nHow does one say this in {{ language }}?", "{{ target }}"),
                              ("Put the following into {{ language }}.\n{{ source }}", "{{ target }}")),
    "translation-zh": _phrasings(("把下面的话译成{{ language }}：{{ source }}", "{{ target }}"),
                                 ("{{ source }}\n\n这句话用{{ language }}怎么说？", "{{ target }}")),
    "reasoning": _phrasings(("{{ question }}\nGive only the answer.", "{{ answer }}"),
                            ("{{ question }}\n\nAnswer without working:", "{{ answer }}"),
                            ("Answer in as few words as you can. {{ question }}", "{{ answer }}")),
    "reasoning-steps": _phrasings(
        ("{{ question }}\nThink step by step.", "{{ steps }}\nThe answer is {{ answer }}."),
        ("{{ question }}\n\nShow how you get there.", "{{ steps }}\nThe answer is {{ answer }}."),
        ("Work this out and explain each step: {{ question }}", "{{ steps }}\nThe answer is {{ answer }}.")),
    "reasoning-zh": _phrasings(("{{ question }}\n只写答案。", "{{ answer }}"),
                               ("请直接回答：{{ question }}", "{{ answer }}")),
    "reasoning-steps-zh": _phrasings(("{{ question }}\n请一步一步地想。", "{{ steps }}\n答案是{{ answer }}。"),
                                     ("{{ question }}\n写出解题过程。", "{{ steps }}\n答案是{{ answer }}。")),
}
"""Ready families. Columns: classification has `text` and `label`; judgement `premise`, `hypothesis` and `label`;
extraction `text`, `field` and `value`; translation `source`, `target` and `language`; reasoning `question` and
`answer`, with worked steps also `steps`. `labels` is the list of all labels."""


class Phraser:
    """Compiled phrasings."""

    def __init__(self, phrasings: str | list[Phrasing], where: str) -> None:
        """A family's name or phrasings. ``where`` is for errors: the place in the recipe."""
        if isinstance(phrasings, str):
            if phrasings not in FAMILIES:
                raise TriviumError(
                    f"{where}: there is no family of templates called {phrasings!r}{nearest(phrasings, FAMILIES)}")
            phrasings = FAMILIES[phrasings]
            texts = [text for phrasing in phrasings for text in (phrasing.user, phrasing.assistant)]
        else:
            texts = []
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self.needed = {name for text in texts for name in meta.find_undeclared_variables(environment.parse(text))}
        """The columns that must hold something: all that a ready family speaks of; templates of your own may allow for
        empty ones."""
        self.programs = []
        for number, phrasing in enumerate(phrasings):
            try:
                self.programs.append([(role, environment.from_string(text))
                                      for role, text in (("system", phrasing.system), ("user", phrasing.user),
                                                         ("assistant", phrasing.assistant)) if text is not None])
            except TemplateSyntaxError as error:
                raise TriviumError(
                    f"{where}.{number}: not valid Jinja: line {error.lineno}: {error.message}") from error

    def __len__(self) -> int:
        return len(self.programs)

    def __call__(self, row: Row, number: int) -> list[dict[str, str]]:
        """The messages that phrasing ``number`` makes of a row. Raises :class:`TriviumError` for a column that is not
        there, or empty where a ready family needs it."""
        empty = next((name for name in sorted(self.needed & row.keys())
                      if row[name] is None or (isinstance(row[name], str) and not row[name].strip())), None)
        if empty is not None:
            raise TriviumError(f"the field {empty!r} is empty")
        if "labels" in self.needed and "labels" not in row:
            raise TriviumError("which labels there are is not said; name them under `labels`")
        try:
            return [{"role": role, "content": program.render(row).strip()} for role, program in self.programs[number]]
        except TemplateError as error:
            raise TriviumError(f"template {number}: {error}; the row has {', '.join(map(str, row))}") from error
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise TriviumError(f"template {number} fails on this row: {error}") from error
