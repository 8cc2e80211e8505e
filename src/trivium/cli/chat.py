"""The command `trivium chat`: a conversation with a model in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivium.errors import TriviumError, nearest

if TYPE_CHECKING:
    from trivium.api import Model

COMMANDS = {"/help": "lists the commands", "/clear": "forgets the conversation", "/again": "answers anew",
            "/quit": "ends"}
"""What may be typed besides messages; a line that begins with two slashes is a message that begins with one."""

def chat(model: Annotated[Path, typer.Argument(help="A model's folder.")],
         prompt: Annotated[str | None, typer.Option(help="Answer this and end.")] = None,
         system: Annotated[str | None, typer.Option(help="A system message.")] = None,
         temperature: Annotated[
             float | None,
             typer.Option(min=0.0, help="0 always takes the likeliest token; unless given it is 0.3 for models of less "
                          "than 500 million parameters, 0.7 for others, or what the model's generation_config.json "
                         "says.")] = None,
         max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
         seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0) -> None:
    """Talk with a model. /help lists the commands."""
    import trivium
    from trivium.cli.places import check_model
    check_model(model)
    loaded = trivium.load(model)
    heat: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    start: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    if prompt is not None:
        print(loaded.generate([*start, {"role": "user", "content": prompt}], max_new_tokens=max_new_tokens, seed=seed,
                              **heat))
        return
    loaded.generate([*start, {"role": "user", "content": "?"}], 0.0, 1)  # what cannot chat is refused before one types
    Talk(loaded, start, heat, max_new_tokens, seed).run()


class Talk:
    """A conversation, turn after turn."""

    def __init__(self, model: Model, start: list[dict[str, Any]], heat: dict[str, Any], longest: int,
                 seed: int) -> None:
        from trivium.progress import Terminal
        self.model, self.start, self.seed = model, start, seed
        self.heat, self.longest = heat, longest
        self.messages, self.console = list(start), Terminal(highlight=False)

    def run(self) -> None:
        """Until the input ends, or somebody ends it."""
        self.help()
        while True:
            try:
                text = self.console.input("[bold]you:[/bold] ").strip()
            except (EOFError, KeyboardInterrupt):
                self.console.print()
                return
            if text.startswith("/") and not text.startswith("//"):
                if text in ("/quit", "/exit"):
                    return
                self.command(text)
            elif text:
                self.messages.append({"role": "user", "content": text[1:] if text.startswith("//") else text})
                self.answer()

    def help(self) -> None:
        """Print the commands."""
        self.console.print(f"({', '.join(f'{name} {what}' for name, what in COMMANDS.items())})", style="dim",
                           markup=False)

    def command(self, text: str) -> None:
        """Do what a line that begins with a slash says."""
        if text == "/help":
            self.help()
        elif text == "/clear":
            self.messages = list(self.start)
            self.console.print("(forgotten)", style="dim", markup=False)
        elif text == "/again":
            if self.messages and self.messages[-1]["role"] == "assistant":
                self.messages.pop()
                self.seed += 1000
                self.answer()
            else:
                self.console.print("(there is no answer yet)", style="dim", markup=False)
        else:
            self.console.print(f"(there is no command {text!r}{nearest(text, COMMANDS)}; // begins a message with a "
                               "slash)", style="red", markup=False)

    def answer(self) -> None:
        """The model's turn."""
        try:
            answer = self.model.generate(self.messages, max_new_tokens=self.longest,
                                         seed=self.seed + len(self.messages), **self.heat)
        except TriviumError as error:
            self.console.print(f"({error}; /clear starts anew)", style="red", markup=False)
            self.messages.pop()
            return
        except KeyboardInterrupt:
            self.console.print("(stopped)", style="dim", markup=False)
            self.messages.pop()
            return
        self.messages.append({"role": "assistant", "content": answer})
        self.console.print("[bold]model:[/bold]", end=" ")
        self.console.print(answer or "(it ended without a word)", markup=False)
