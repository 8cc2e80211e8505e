"""The command line. Thin: every command is a function of the package."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from trivium.cli import feedback as feedback_commands
from trivium.cli import serving as serving_commands
from trivium.cli import studio as studio_commands
from trivium.cli.chat import chat
from trivium.cli.corpus import corpus_app
from trivium.cli.fetching import fetch
from trivium.cli.looking import inspect_text
from trivium.cli.output import any_encoding, no_escapes, quiet_libraries, to_json
from trivium.cli.places import artifacts_of, check_artifact
from trivium.cli.planning import estimate_app, lesson, prompt, scaling
from trivium.cli.quickstart import quickstart
from trivium.cli.run import run
from trivium.cli.study import study
from trivium.errors import TriviumError, counted, nearest, out_of_memory, unexpected
from trivium.files import refusal
from trivium.version import __version__
from trivium.visible import visible

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
app.command()(studio_commands.studio)


app.command()(run)
app.command()(study)
app.command()(fetch)


@app.command()
def trace(artifact: Annotated[Path, typer.Argument(help="A model, or any other artifact.")],
          as_json: Annotated[bool, typer.Option("--json", help="Print the chain as JSON.")] = False) -> None:
    """Print what an artifact was made from, back to the raw documents."""
    from trivium.artifacts import lineage
    check_artifact(artifact)
    chain: list[dict[str, Any]] = [
        {"depth": depth, "input": field, "path": str(place), "digest": digest, "changed": changed}
        for depth, field, place, digest, changed in lineage(artifact)]
    if as_json:
        print(json.dumps(chain, indent=1))
        return
    told = set[str]()
    for link, deeper in zip(chain, [*(one["depth"] for one in chain[1:]), 0]):
        changed = "  CHANGED since it was used" if link["changed"] else ""
        again = "  (as above)" if link["path"] in told else ""
        if deeper > link["depth"]:
            told.add(link["path"])
        field = f"{link['input']}: " if link["input"] else ""
        print(f"{'  ' * link['depth']}{field}{link['path']}  {link['digest'][:12]}{changed}{again}")


@app.command()
def verify(artifact: Annotated[Path, typer.Argument(help="The folder of an artifact, or of a run.")]) -> None:
    """Check every file of an artifact, or of all those of a run, against its manifest."""
    from trivium.artifacts import open_artifact
    artifacts = artifacts_of(artifact)
    wrong = []
    for each in artifacts:
        try:
            opened = open_artifact(each, verify=True)
        except TriviumError as error:
            if len(artifacts) == 1:
                raise
            wrong.append(each)
            print(f"{each}: {error}")
            continue
        files = len(opened.manifest["files"] | opened.manifest.get("records", {}))
        print(f"{each}: {counted(files, 'file')} as made, digest {opened.digest[:12]}")
    if wrong:
        raise TriviumError(f"{artifact}: {len(wrong)} of {counted(len(artifacts), 'artifact')} "
                           "are not as they were made")


app.command()(chat)
inspect_app = typer.Typer(no_args_is_help=True, help="Look inside.")
app.add_typer(inspect_app, name="inspect")
inspect_app.command("text")(inspect_text)
app.add_typer(estimate_app, name="estimate")
app.command()(lesson)
app.command()(scaling)
app.command()(prompt)


@inspect_app.command("batch")
def inspect_batch(recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
                  stage: Annotated[str, typer.Option(help="A stage that trains.")],
                  step: Annotated[int, typer.Option(help="The update, from 0.")] = 0,
                  row: Annotated[int | None, typer.Option(help="Only this row of the batch, from 0.")] = None,
                  sample: Annotated[bool, typer.Option("--sample", help="Make what the stage reads of a sample of the "
                                                       "data, where the run has not made it yet.")] = False,
                  set_: Annotated[list[str] | None,
                                  typer.Option("--set", help="Override a setting. Repeatable.")] = None,
                  as_json: Annotated[bool, typer.Option("--json", help="A JSON object a token.")] = False) -> None:
    """Print a batch as the model sees it: tokens, segments, positions, and which tokens carry loss."""
    from trivium.planning.inspection import tokens_of
    from trivium.recipe.load import load_recipe
    found = tokens_of(load_recipe(recipe, set_ or []), stage, step, shlex.quote(str(recipe)), sample)
    tokens = [token for token in found if row is None or token["row"] == row]
    if not tokens:
        raise TriviumError(f"--row {row}: the batch has no such row, or it is empty")
    if as_json:
        for token in tokens:
            print(to_json(token))
        return
    sided = "side" in tokens[0]
    print(
        f"{'row':>3} {'  side ' if sided else ''}{'place':>5} {'position':>8} {'segment':>7} {'continues':>9} "
        f"{'loss':>4} {'id':>6}  text"
    )
    for token in tokens:
        continues = "" if token["continues"] is None else token["continues"]
        more = f"  for {to_json(token['target'])}" if "target" in token else ""
        more += f"  label {token['label']}" if "label" in token and not token["position"] else ""
        print(
            f"{token['row']:>3} {token['side'] + ' ' if sided else ''}{token['place']:>5} {token['position']:>8} "
            f"{token['segment']:>7} {continues:>9} "
            f"{'*' if token['loss'] else '':>4} {token['id']:>6}  {to_json(token['text'])}{more}"
        )
    learned = sum(token["loss"] for token in tokens)
    segments = len({token["segment"] for token in tokens})
    print(f"{counted(len(tokens), 'token')} in {counted(segments, 'segment')}; {learned} carry loss (*)")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A language model's folder, or that of a LoRA adapter.")],
    gguf: Annotated[Path, typer.Option(help="The file to write, for llama.cpp and what is built on it.")],
    kind: Annotated[str, typer.Option("--type", help="Number format of the matrices: f32, f16, bf16, q8_0, q5_1, "
                                                     "q5_0, q4_1 or q4_0.")] = "f16") -> None:
    """Write a model in another format: GGUF, for Llama, Mistral, Qwen2 and Qwen3. An adapter is folded into its base on
    the way."""
    from trivium.cli.places import check_model
    from trivium.stages.models import export_gguf
    check_model(model)
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
             precision: Annotated[str, typer.Option(help="Number format of the products: float32; bf16; or auto, bf16 "
                                                         "where the hardware multiplies it natively.")] = "float32",
             answers: Annotated[Path | None,
                                typer.Option(
                                    help="Write every question and what became of it to this JSONL file.")] = None,
             as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False) -> None:
    """Examine models on tasks: multiple choice, free answers, bits per byte, refusals, made-up things, memorisation,
    win rates."""
    from trivium.cli.evaluation import describe
    from trivium.cli.places import check_model
    from trivium.evaluation.run import run_tasks
    for folder in [*model, *([against] if against else [])]:
        check_model(folder)
    formats = ("float32", "bf16", "auto")
    chosen: Any = precision
    if chosen not in formats:
        raise TriviumError(f"--precision {precision}: there is no such number format{nearest(precision, formats)}")
    overrides = [*(set_ or []), *([f"limit={limit}"] if limit else [])]
    results = run_tasks(model, task, against, overrides, seed, answers, precision=chosen)
    print(to_json(results, 1) if as_json else describe(results))


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
    place, made = out or run / "report.html", run / "report" / "index.html"
    write_page(place, gather(run, Stages()))
    print(place)
    if made.is_file():
        print(f"({made} is what the stage `report` wrote when it ran, and stays as it is)")


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(help="Runs' folders, two or more.")],
            as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False) -> None:
    """Show how runs differ, in settings, in inputs (your code among them) and in results: two, one beside the other;
    more, in a table for each stage, with means over seeds."""
    from trivium.report.compare import as_text, differences
    from trivium.report.table import as_table, over_runs
    if len(runs) < 2:
        raise TriviumError(f"compare: name another run's folder beside {runs[0]}")
    if len(runs) == 2:
        found = differences(*runs)
        print(to_json(found, 1) if as_json else as_text(found))
    else:
        found = over_runs(runs)
        print(to_json(found, 1) if as_json else as_table(found))


@app.command()
def merge(
    models: Annotated[list[Path], typer.Argument(help="A LoRA adapter's folder, ours or PEFT's; or several models, "
                                                      "whole or adapters.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write the whole model to.")],
    base: Annotated[Path | None,
                    typer.Option(help="The base model: of an adapter, where it is not where the adapter says; of "
                                      "several models, that all began at.")] = None,
    save_dtype: Annotated[str, typer.Option(help="Number format of the weights: float32, bf16, f16, or base: that of "
                                                 "the base, or of the first model.")] = "base",
    method: Annotated[str, typer.Option(help="How several models are merged: linear (their mean), slerp (two of them), "
                                             "task_arithmetic, ties, dare, dare_ties.")] = "linear",
    weights: Annotated[str | None, typer.Option(help="A number for each model, as in 0.7,0.3: its share, or what its "
                                                     "change of the base is multiplied by.")] = None,
    density: Annotated[float | None, typer.Option(help="The share of each change that is kept: by default the largest "
                                                       "0.2 (ties), or 0.5 at random (dare, dare_ties).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is kept at random.")] = 0
) -> None:
    """Fold a LoRA adapter into its base, or merge several models into one, and write a whole model."""
    from trivium.cli.places import check_model
    from trivium.errors import nearest
    from trivium.model.merging import Mixing
    from trivium.model.weights import DTYPES
    from trivium.stages.models import merge_adapter, merge_models
    known = ["base", *DTYPES]
    if save_dtype not in known:
        raise TriviumError(f"--save-dtype {save_dtype}: there is no such number format{nearest(save_dtype, known)}")
    for model in models:
        check_model(model)
    if len(models) == 1:
        merge_adapter(models[0], folder, base, save_dtype)
    else:
        try:
            shares = tuple(float(weight) for weight in (weights or "").split(",") if weight.strip())
        except ValueError:
            raise TriviumError(f"--weights {weights}: numbers with commas between them are wanted, as in 0.7,0.3"
                               ) from None
        merge_models(models, folder, Mixing(method, shares, density, seed), base, save_dtype)  # type: ignore[arg-type]
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
        raise TriviumError(f"there is no stage of kind {kind!r}{nearest(kind, [*stages, 'rounds'])}")
    known = described()
    shown = {name: known[name] if name in known else describe(stages[name]) for name in ([kind] if kind else kinds)}
    if as_json:
        print(to_json({name: about["schema"] for name, about in shown.items()}, 1))
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
            default = f" = {to_json(defaults[name])}" if name in defaults else " (needed)"
            print(f"{indent}{name}{default}\n{indent}    {meaning}")


def main() -> None:
    """The program. A fault of the user's is one line and exit status 2, never a traceback; one of Trivium's own is one
    line and exit status 1, with its details in a file, or a traceback where ``TRIVIUM_TRACEBACK`` is set."""
    any_encoding()
    no_escapes()
    quiet_libraries()
    try:
        try:
            code = app(standalone_mode=False)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a reader that went away is heard of here, not when Python ends
        if code == 130:  # what an interrupt becomes
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except TriviumError as error:
        print(f"error: {visible(str(error), one_line=True)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's last flush is silent
        sys.exit(141)
    except OSError as error:
        place = Path(error.filename if isinstance(error.filename, str) else "the disk")
        if said := refusal(error, place):
            print(f"error: {said}", file=sys.stderr)
            sys.exit(2)
        failed(error)
    except Exception as error:
        if hasattr(error, "format_message"):  # a wrong option or argument
            sys.exit(misused(error))
        failed(error)


def misused(error: Any) -> int:
    """Print one line on a wrong option or argument; the exit status."""
    context, found = getattr(error, "ctx", None), getattr(error.__cause__, "errors", None)
    command = context.command_path if context else "trivium"
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    elif found and getattr(error, "param", None):
        from trivium.faults import in_words
        name = next((one for one in error.param.opts if one.startswith("--")), str(error.param.name).upper())
        print(f"error: {command}: {name}{in_words(found(include_url=False))}", file=sys.stderr)
    else:
        said = error.format_message().rstrip(".")
        said = visible(said[:1].lower() + said[1:], one_line=True)
        print(f"error: {command}: {said}; see {command} --help", file=sys.stderr)
    return int(error.exit_code)


def failed(error: Exception) -> NoReturn:
    """End with one line for what nobody expected."""
    if os.environ.get("TRIVIUM_TRACEBACK"):
        raise error
    print("error: there is not enough memory" if out_of_memory(error) else f"error: {unexpected(error)}",
          file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
