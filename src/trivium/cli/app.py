"""The command line. Thin: every command is a function of the package."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trivium.cli import feedback as feedback_commands
from trivium.cli import serving as serving_commands
from trivium.cli.corpus import corpus_app
from trivium.cli.planning import estimate_app, lesson, prompt, scaling
from trivium.cli.quickstart import quickstart
from trivium.errors import TriviumError
from trivium.version import __version__

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Train a language model the whole way: documents, pretraining, fine-tuning, preferences, RLHF, evaluation.")


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"trivium {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and end.")] = False
) -> None:
    pass


app.add_typer(corpus_app, name="corpus")
recipe_app = typer.Typer(no_args_is_help=True, help="What a recipe may say.")
app.add_typer(recipe_app, name="recipe")
app.command()(quickstart)
app.command()(feedback_commands.annotate)
app.add_typer(feedback_commands.app, name="feedback")
app.command()(serving_commands.serve)


@app.command()
def run(recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
        set_: Annotated[list[str] | None,
                        typer.Option("--set", help="Override a setting: pretrain.epochs=2. Repeatable.")] = None,
        only: Annotated[list[str] | None,
                        typer.Option(help="Run this stage, and what it needs. Repeatable.")] = None,
        quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print the artifacts as JSON.")] = False) -> None:
    """Run a recipe. What is finished is skipped; what was interrupted goes on."""
    from trivium.pipeline.run import run as run_recipe
    artifacts = run_recipe(recipe, set_ or [], only or [], quiet)
    if as_json:
        print(json.dumps({name: {"folder": str(a.folder), "digest": a.digest, "seconds": a.manifest["seconds"],
                                 "summary": a.summary} for name, a in artifacts.items()}, indent=1))
        return
    for name, artifact in artifacts.items():
        # what a report holds depends on when it was made
        digest = artifact.digest[:12] if artifact.manifest["files"] else "-"
        print(f"{name:16} {digest:12}  {artifact.manifest['seconds']:8.1f} s  {artifact.folder}")


@app.command()
def trace(artifact: Annotated[Path, typer.Argument(help="A model, or any other artifact.")],
          as_json: Annotated[bool, typer.Option("--json", help="Print the chain as JSON.")] = False) -> None:
    """Print what an artifact was made from, back to the raw documents."""
    from trivium.artifacts import lineage
    chain = [{"depth": depth, "input": field, "path": str(place), "digest": digest, "changed": changed}
             for depth, field, place, digest, changed in lineage(artifact)]
    if as_json:
        print(json.dumps(chain, indent=1))
        return
    for link in chain:
        changed = "  CHANGED since it was used" if link["changed"] else ""
        field = f"{link['input']}: " if link["input"] else ""
        print(f"{'  ' * int(str(link['depth']))}{field}{link['path']}  {str(link['digest'])[:12]}{changed}")


@app.command()
def verify(artifact: Annotated[Path, typer.Argument(help="An artifact's folder.")]) -> None:
    """Check every file of an artifact against its manifest."""
    from trivium.artifacts import open_artifact
    opened = open_artifact(artifact, verify=True)
    print(
        f"{artifact}: {len(opened.manifest['files'] | opened.manifest.get('records', {}))} files are as they were "
        f"made, digest {opened.digest[:12]}"
    )


@app.command()
def chat(model: Annotated[Path, typer.Argument(help="A model's folder.")],
         prompt: Annotated[str | None, typer.Option(help="Answer this and end.")] = None,
         system: Annotated[str | None, typer.Option(help="A system message.")] = None,
         temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.7,
         max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
         seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0) -> None:
    """Talk with a model. /clear forgets the conversation, /quit ends."""
    import trivium
    loaded = trivium.load(model)
    start: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    if prompt is not None:
        print(loaded.generate([*start, {"role": "user", "content": prompt}], temperature, max_new_tokens, seed=seed))
        return
    from rich.console import Console
    console = Console(highlight=False)
    messages = list(start)
    while True:
        try:
            text = console.input("[bold]you:[/bold] ").strip()
        except EOFError:
            return
        if text in ("/quit", "/exit"):
            return
        if text == "/clear":
            messages = list(start)
        elif text:
            messages.append({"role": "user", "content": text})
            try:
                answer = loaded.generate(messages, temperature, max_new_tokens, seed=seed + len(messages))
            except TriviumError as error:
                console.print(f"({error}; /clear starts anew)", style="red", markup=False)
                messages.pop()
                continue
            messages.append({"role": "assistant", "content": answer})
            console.print("[bold]model:[/bold]", end=" ")
            console.print(answer, markup=False)


inspect_app = typer.Typer(no_args_is_help=True, help="Look inside.")
app.add_typer(inspect_app, name="inspect")
app.add_typer(estimate_app, name="estimate")
app.command()(lesson)
app.command()(scaling)
app.command()(prompt)


@inspect_app.command("batch")
def inspect_batch(recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
                  stage: Annotated[str, typer.Option(help="A stage that trains.")],
                  step: Annotated[int, typer.Option(help="The update, from 0.")] = 0,
                  row: Annotated[int | None, typer.Option(help="Only this row of the batch, from 0.")] = None,
                  set_: Annotated[list[str] | None,
                                  typer.Option("--set", help="Override a setting. Repeatable.")] = None,
                  as_json: Annotated[bool, typer.Option("--json", help="A JSON object a token.")] = False) -> None:
    """Print a batch as the model sees it: tokens, segments, positions, and which tokens carry loss."""
    from trivium.planning.inspection import tokens_of
    from trivium.recipe.load import load_recipe
    tokens = [
        token for token in tokens_of(load_recipe(recipe, set_ or []), stage, step) if row is None or token["row"] == row
    ]
    if not tokens:
        raise TriviumError(f"--row {row}: the batch has no such row, or it is empty")
    if as_json:
        for token in tokens:
            print(json.dumps(token, ensure_ascii=False))
        return
    sided = "side" in tokens[0]
    print(
        f"{'row':>3} {'  side ' if sided else ''}{'place':>5} {'position':>8} {'segment':>7} {'continues':>9} "
        f"{'loss':>4} {'id':>6}  text"
    )
    for token in tokens:
        continues = "" if token["continues"] is None else token["continues"]
        more = f"  for {json.dumps(token['target'], ensure_ascii=False)}" if "target" in token else ""
        more += f"  label {token['label']}" if "label" in token and not token["position"] else ""
        print(
            f"{token['row']:>3} {token['side'] + ' ' if sided else ''}{token['place']:>5} {token['position']:>8} "
            f"{token['segment']:>7} {continues:>9} "
            f"{'*' if token['loss'] else '':>4} {token['id']:>6}  {json.dumps(token['text'], ensure_ascii=False)}{more}"
        )
    learned = sum(token["loss"] for token in tokens)
    print(f"{len(tokens)} tokens in {len({token['segment'] for token in tokens})} segments; {learned} carry loss (*)")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A language model's folder, or that of a LoRA adapter.")],
    gguf: Annotated[Path, typer.Option(help="The file to write, for llama.cpp and what is built on it.")],
    kind: Annotated[str, typer.Option("--type", help="Number format of the matrices: f32, f16, bf16, q8_0, q5_1, "
                                                     "q5_0, q4_1 or q4_0.")] = "f16") -> None:
    """Write a model in another format: GGUF, for Llama, Mistral, Qwen2 and Qwen3. An adapter is folded into its base on
    the way."""
    from trivium.stages.models import export_gguf
    written = export_gguf(model, gguf, kind)
    print(f"{gguf}: {written.bytes:,} bytes; rounding to {kind} changed the matrices by {written.error:.2%}"
          + (f"; {written.plain} matrices are in f16, as their rows are no multiple of 32" if written.plain else ""))


@app.command()
def evaluate(model: Annotated[list[Path], typer.Argument(help="Models' folders.")],
             task: Annotated[list[Path],
                             typer.Option(help="A task's YAML file, such as recipes/tasks/gsm8k.yaml. Repeatable.")],
             against: Annotated[
                 Path | None,
                 typer.Option(
                     help="A model to compare with: win rates, and whether differences are more than chance.")] = None,
             set_: Annotated[
                 list[str] | None,
                 typer.Option("--set", help="Override a setting of every task: shots=5. Repeatable.")] = None,
             limit: Annotated[int | None, typer.Option(min=1, help="Most questions of each group.")] = None,
             seed: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = 0,
             answers: Annotated[Path | None,
                                typer.Option(
                                    help="Write every question and what became of it to this JSONL file.")] = None,
             as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False) -> None:
    """Examine models on tasks: multiple choice, free answers, bits per byte, refusals, made-up things, memorisation,
    win rates."""
    from trivium.cli.evaluation import describe
    from trivium.evaluation.run import run_tasks
    overrides = [*(set_ or []), *([f"limit={limit}"] if limit else [])]
    results = run_tasks(model, task, against, overrides, seed, answers)
    print(json.dumps(results, indent=1, ensure_ascii=False) if as_json else describe(results))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/quickstart.")],
    out: Annotated[Path | None,
                   typer.Option(help="The page to write; by default report.html in the run's folder.")] = None
) -> None:
    """Write a run's report anew: one page that opens without a network. What has not run yet is left out."""
    from trivium.report.gather import gather
    from trivium.report.page import write_page
    from trivium.stages.registry import Stages
    place = out or run / "report.html"
    write_page(place, gather(run, Stages()))
    print(place)


@app.command()
def compare(first: Annotated[Path, typer.Argument(help="A run's folder.")],
            second: Annotated[Path, typer.Argument(help="Another one's.")],
            as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False) -> None:
    """Show how two runs differ, in settings, in inputs (your code among them) and in results."""
    from trivium.report.compare import as_text, differences
    found = differences(first, second)
    print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else as_text(found))


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="A LoRA adapter's folder, ours or PEFT's.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write the whole model to.")],
    base: Annotated[Path | None,
                    typer.Option(help="The base model, where it is not where the adapter says.")] = None,
    save_dtype: Annotated[str, typer.Option(help="Number format of the weights: float32, bf16, f16, or base: that of "
                                                 "the base.")] = "base"
) -> None:
    """Fold a LoRA adapter into its base, and write a whole model."""
    from trivium.errors import nearest
    from trivium.model.weights import DTYPES
    from trivium.stages.models import merge_adapter
    known = ["base", *DTYPES]
    if save_dtype not in known:
        raise TriviumError(f"--save-dtype {save_dtype}: known are {', '.join(known)}{nearest(save_dtype, known)}")
    merge_adapter(adapter, folder, base, save_dtype)
    print(folder)


@recipe_app.command("schema")
@app.command()
def schema(kind: Annotated[str | None, typer.Argument(help="One kind of stage.")] = None,
           plugin: Annotated[list[Path] | None,
                             typer.Option(help="A Python file whose stages are listed too. Repeatable.")] = None,
           as_json: Annotated[bool, typer.Option("--json", help="Print JSON schemas.")] = False) -> None:
    """List the settings of every kind of stage, with their defaults."""
    from trivium.errors import nearest
    from trivium.recipe.schema import describe, described
    from trivium.stages.registry import Stages
    stages = Stages(plugin or ())
    kinds = ["recipe", *stages, "rounds"]
    if kind and kind not in kinds:
        raise TriviumError(f"there is no stage of kind {kind!r}{nearest(kind, kinds)}")
    known = described()
    shown = {name: known[name] if name in known else describe(stages[name]) for name in ([kind] if kind else kinds)}
    if as_json:
        print(json.dumps({name: about["schema"] for name, about in shown.items()}, indent=1, ensure_ascii=False))
        return
    for name, about in shown.items():
        print(f"\n{name}: {about['about']}")
        _print_settings(about["schema"], about["schema"].get("$defs", {}), about["defaults"], "  ")


def _print_settings(described: dict[str, Any], groups: dict[str, Any], defaults: dict[str, Any], indent: str) -> None:
    """One line a setting and one for what it means; groups of settings are listed below their name."""
    for name, about in described.get("properties", {}).items():
        reference = str(about.get("$ref", ""))
        group = groups.get(reference.rpartition("/")[2], {})
        meaning = " ".join(str(about.get("description") or group.get("description", "")).split())
        if reference and isinstance(defaults.get(name), dict):
            print(f"{indent}{name}:\n{indent}    {meaning}")
            _print_settings(group, groups, defaults[name], indent + "  ")
        else:
            default = f" = {json.dumps(defaults[name], ensure_ascii=False)}" if name in defaults else " (needed)"
            print(f"{indent}{name}{default}\n{indent}    {meaning}")


def main() -> None:
    """The program. A fault of the user's is one line and exit status 2, never a traceback."""
    try:
        app()
    except TriviumError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 130:  # typer turns an interrupt into exit status 130
            raise
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(
                f"error: {error.filename or 'the disk'}: the disk is full; "
                "free some space and run the same command again",
                file=sys.stderr)
            sys.exit(2)
        raise


if __name__ == "__main__":
    main()
