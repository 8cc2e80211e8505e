"""The command `trivium inspect text`: what a model makes of a text, token by token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivium.cli.output import to_json
from trivium.errors import TriviumError, counted

if TYPE_CHECKING:
    from trivium.planning.see_through import SeeThrough


def inspect_text(model: Annotated[Path, typer.Argument(help="A language model's folder.")],
                 text: Annotated[str | None, typer.Argument(help="The text.")] = None,
                 chat: Annotated[Path | None, typer.Option(help="A file with a chat in the text's place: JSON, "
                                                           "messages or an object with them; or JSONL.")] = None,
                 row: Annotated[int, typer.Option(min=0, help="The line of a JSONL file, from 0.")] = 0,
                 after: Annotated[int | None, typer.Option(help="Print the likeliest tokens after this place.")] = None,
                 layer: Annotated[int | None, typer.Option(min=0, help="A layer, from 0, whose attention is "
                                                           "printed; with --head.")] = None,
                 head: Annotated[int | None, typer.Option(min=0, help="The head of the layer, from 0.")] = None,
                 reward: Annotated[Path | None, typer.Option(help="A reward model: the score that the answer would get "
                                                             "if it ended at each token.")] = None,
                 reference: Annotated[Path | None, typer.Option(help="Another model: log p - log r and KL(p || r) at "
                                                                "each token.")] = None,
                 as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON "
                                                       "object.")] = False) -> None:
    """Print the tokens that a model reads of a text or a chat, which carry loss, and what it expected at each: the
    probability and rank of the token that stands there, and the entropy in nats. At most 512 tokens."""
    from trivium.cli.places import check_model
    from trivium.planning.see_through import SeeThrough
    for folder in filter(None, (model, reward, reference)):
        check_model(folder)
    if (text is None) == (chat is None):
        raise TriviumError("inspect text: give a text, or the file of a chat by --chat; one of the two")
    if (layer is None) != (head is None):
        raise TriviumError("--layer and --head go together: the attention of one head of one layer is printed")
    looking = SeeThrough()
    found = gathered(looking, model, text if chat is None else messages_in(chat, row), layer, head, reward, reference)
    if after is not None and not 0 <= after < len(found["tokens"]):
        raise TriviumError(f"--after {after}: the places go from 0 to {len(found['tokens']) - 1}")
    print(to_json(found, 1) if as_json else "\n".join(lines_of(found, after)))


def gathered(looking: SeeThrough, model: Path, text: Any, layer: int | None, head: int | None, reward: Path | None,
             reference: Path | None) -> dict[str, Any]:
    """All that was asked for: what the methods of :class:`SeeThrough` give, by their names."""
    from trivium.planning.see_through import answer_in
    found = looking.pieces(model, text)
    ids = [token["id"] for token in found["tokens"]]
    first, end = answer_in(found["tokens"])
    found |= {"next": looking.next(model, ids)["places"]}
    if layer is not None and head is not None:
        found["attention"] = {"layer": layer, "head": head, **looking.attention(model, ids, layer, head)}
    if reward:
        found["scores"] = {"first": first, **looking.scores(reward, model, ids[:end], first)}
    if reference:
        found["divergence"] = {"first": 1, **looking.divergence(model, reference, ids)}
    return found


def messages_in(file: Path, row: int) -> Any:
    """The messages of a chat in a file. Raises :class:`TriviumError` where there are none."""
    from trivium.files import read_text
    text = read_text(file)
    try:
        value = json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        if row >= len(lines):
            raise TriviumError(f"--row {row}: {file} has {counted(len(lines), 'line')}") from None
        try:
            value = json.loads(lines[row])
        except ValueError as error:
            raise TriviumError(f"{file}: line {row + 1} is no JSON ({error})") from error
    found = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(found, list):
        raise TriviumError(f"{file}: holds no chat; it is a list of messages, or an object with `messages`")
    return found


def lines_of(found: dict[str, Any], after: int | None) -> list[str]:
    """A line for each token; and for a place, what might come after it and what its head looks at."""
    tokens, scores, divergence = found["tokens"], found.get("scores"), found.get("divergence")
    lines = [f"{'place':>5} {'id':>7} {'loss':>4} {'probability':>11} {'rank':>6} {'entropy':>7}"
             f"{'   score' if scores else ''}{'  log p/r       KL' if divergence else ''}  text"]
    for place, token in enumerate(tokens):
        before = found["next"][place - 1] if place else None
        standing = before["standing"] if before else None
        told = (f"{standing['probability']:>11.4g} {standing['rank']:>6} {before['entropy']:>7.3f}"
                if before and standing else " " * 26)
        at = place - scores["first"] if scores else -1
        score = f"{scores['scores'][at]:>8.3f}" if scores and 0 <= at < len(scores["scores"]) else " " * 8
        apart = f"{divergence['ratios'][place - 1]:>9.3f} {divergence['kl'][place - 1]:>8.4f}" if (
            divergence and place) else " " * 18
        lines.append(f"{place:>5} {token['id']:>7} {'*' if token['loss'] else '':>4} {told}"
                     f"{score if scores else ''}{apart if divergence else ''}  {to_json(token['text'])}"
                     f"{' (special)' if token['special'] else ''}")
    learned = sum(bool(token["loss"]) for token in tokens)
    lines.append(f"{counted(len(tokens), 'token')}" + (f"; {learned} carry loss (*)" if found["rendered"] else ""))
    if after is not None:
        lines.append(f"\nafter {to_json(tokens[after]['text'])} ({after}), entropy "
                     f"{found['next'][after]['entropy']:.3f} nats:")
        lines += [f"{rank:>5} {one['id']:>7} {one['probability']:>11.4g}  {to_json(one['text'])}"
                  for rank, one in enumerate(found["next"][after]["likeliest"], 1)]
    if "attention" in found:
        lines += attention_lines(found, len(tokens) - 1 if after is None else after)
    return lines


def attention_lines(found: dict[str, Any], place: int) -> list[str]:
    """What a head looks at from a place, the most first."""
    head, tokens = found["attention"], found["tokens"]
    row = sorted(enumerate(head["weights"][place]), key=lambda one: -one[1])[:10]
    return [f"\nlayer {head['layer']}, head {head['head']}: {to_json(tokens[place]['text'])} ({place}) looks at",
            *(f"{where:>5} {share:>11.4g}  {to_json(tokens[where]['text'])}" for where, share in row),
            *([f"      {head['before'][place]:>11.4g}  (a prefix before the text)"] if head["before"] else [])]
