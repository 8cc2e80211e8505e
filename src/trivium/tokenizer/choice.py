"""A chat template chosen by its name or its file, a default for what the system says, and a day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from trivium.errors import TriviumError
from trivium.files import read_text
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.named import BETTER, NEEDED, TEMPLATE, text_of
from trivium.tokenizer.rendering import Header
from trivium.tokenizer.templates import TemplateTokenizer
from trivium.tokenizer.train import DOCUMENT, END, PAD


def choose(tokenizer: ChatTokenizer, template: str | Path | None = None, system: str | None = None,
           day: date | None = None) -> tuple[ChatTokenizer, Sequence[str]]:
    """A tokenizer with another ``template`` (a name of :data:`NEEDED`, or a file), another default for what the
    ``system`` says, or another ``day``; None keeps what there is. With it come the template's tokens that the
    vocabulary lacks and that are spelt as text.

    No entry is added to a vocabulary, for the model's matrices have none for it: raises :class:`TriviumError` for a
    template that is nothing without its tokens, and where it does not fit a chat."""
    bare = Header.split(tokenizer.template)[1]
    header, text = Header(system or tokenizer.header.system, day or tokenizer.header.day), bare
    if isinstance(template, Path):
        read, text = Header.split(read_text(template).rstrip("\n"))
        header = Header(header.system or read.system, day or read.day)
    elif template is not None:
        text = text_of(template)
    if text == TEMPLATE and not isinstance(tokenizer, TemplateTokenizer):
        return ChatTokenizer(tokenizer.data, header.system), ()
    if template is None or isinstance(template, Path):
        return _with(tokenizer, header.before(text)), ()
    known = tokenizer.sealed.ids
    missing = [token for token in NEEDED[template] if token not in known]
    if missing:
        fit = [name for name, tokens in NEEDED.items() if all(token in known for token in tokens)]
        raise TriviumError(f"template: {template}: the vocabulary has no {', '.join(missing)}, and the model no row "
                           f"for a new token; take a base that has them, or one of {', '.join(fit)}")
    return _with(tokenizer, header.before(text)), [token for token in BETTER.get(template, ()) if token not in known]


def _with(tokenizer: ChatTokenizer, template: str) -> TemplateTokenizer:
    """The same vocabulary under another template."""
    if isinstance(tokenizer, TemplateTokenizer):
        return TemplateTokenizer(tokenizer.data, template, dict(tokenizer.special), tokenizer.files, tokenizer.name)
    return TemplateTokenizer(tokenizer.data, template, {"bos": DOCUMENT, "eos": END, "pad": PAD})
