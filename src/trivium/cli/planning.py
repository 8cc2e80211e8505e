"""The commands that teach and plan: `trivium lesson`, `estimate`, `scaling`, `prompt`. Heavy modules are imported
inside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from trivium.cli.output import to_json
from trivium.cli.places import check_model
from trivium.errors import TriviumError, counted


class PlanByDefault(TyperGroup):
    """A group whose first word may also be a recipe, or an option of the plan."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command in front of what names none."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["plan", *args]
        return super().parse_args(ctx, args)


estimate_app = typer.Typer(
    cls=PlanByDefault, no_args_is_help=True,
    help="Predict what a run needs: `estimate RECIPE` its time on this machine, "
    "`estimate --params 8B ...` what a large one takes, `estimate memory RECIPE` a step's memory.")


@estimate_app.command("plan")
def plan(recipe: Annotated[Path | None,
                           typer.Argument(help="A recipe, whose time on this machine is predicted.")] = None,
         params: Annotated[str | None,
                           typer.Option(help="Parameters, such as 8B, or a known run: gpt-3, llama-3-70b ...")] = None,
         tokens: Annotated[str | None,
                           typer.Option(help="Tokens to train on, such as 15T; 20 a parameter unless given.")] = None,
         active: Annotated[str | None,
                           typer.Option(help="Parameters that a token meets, in a mixture of experts.")] = None,
         gpu: Annotated[str, typer.Option(help="The GPU: h100, a100, rtx4090 ...")] = "h100",
         count: Annotated[int, typer.Option(help="How many of them.")] = 8,
         price: Annotated[float, typer.Option(help="Dollars an hour of one GPU.")] = 2.0,
         utilization: Annotated[
             float | None,
             typer.Option(help="Share of the peak that is reached; by a rule from known runs unless given.")] = None,
         length: Annotated[int, typer.Option(help="Tokens in a row.")] = 8192,
         epochs: Annotated[float, typer.Option(help="Passes over the tokens.")] = 1.0,
         known: Annotated[bool, typer.Option("--known", help="Compare the estimate with published runs.")] = False,
         set_: Annotated[list[str] | None,
                         typer.Option("--set", help="Override a setting of the recipe. Repeatable.")] = None,
         as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Predict a recipe's time here, or a large run's arithmetic, days, money, energy, data and memory (the default)."""
    if recipe is not None:
        if params is not None or known:
            raise TriviumError("estimate: name a recipe or --params, not both")
        _recipe(recipe, set_ or [], as_json)
    elif known:
        _known(as_json)
    elif params is not None:
        from trivium.planning.plan import describe, estimate, make_plan
        made = make_plan(params, tokens, gpu, count, price, active, utilization, length, epochs)
        found = estimate(made)
        print(json.dumps(found, indent=1) if as_json else describe(made, found))
    else:
        raise TriviumError(
            "estimate: name a recipe, or give --params (as in --params 8B --tokens 15T --gpu h100 --count 1024)")


def _known(as_json: bool) -> None:
    from trivium.planning.plan import known_runs, large
    rows = known_runs()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'run':24} {'GPU':6} {'published':>10} {'estimated':>10} {'':15} {'ratio':>6}  source")
    for row in rows:
        print(
            f"{row['run']:24} {row['gpu'] or '':6} {large(row['published']):>10} {large(row['estimated']):>10} "
            f"{row['unit']:15} {row['ratio']:6.2f}  {row['source']}"
        )


def _recipe(recipe: Path, overrides: list[str], as_json: bool) -> None:
    from trivium.planning.this_machine import predict
    from trivium.recipe.load import load_recipe
    found = predict(load_recipe(recipe, overrides))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for row in found["stages"]:
        print(f"{row['stage']:20} " + (f"{row['seconds']:8.1f} s   {row['from']}"
                                       if row["seconds"] is not None else f"{'?':>8}     {row['from']}"))
    left_out = f"; without {', '.join(found['not_predicted'])}" if found["not_predicted"] else ""
    print(
        f"{'in all':20} {found['seconds']:8.1f} s   measured on "
        f"this machine in {found['measured_seconds']:.1f} s{left_out}"
    )


@estimate_app.command("memory")
def estimate_memory(recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
                    stage: Annotated[str, typer.Option(help="A stage that trains.")],
                    processes: Annotated[int, typer.Option(min=1, help="Processes that torchrun would start.")] = 1,
                    set_: Annotated[list[str] | None,
                                    typer.Option("--set", help="Override a setting. Repeatable.")] = None,
                    as_json: Annotated[bool, typer.Option("--json", help="Print bytes as JSON.")] = False) -> None:
    """Predict the memory of a training step, for each process, without taking it. Python and the libraries come on
    top."""
    from dataclasses import asdict

    from trivium.planning.inspection import memory_of
    from trivium.recipe.load import load_recipe
    memory, precision = memory_of(load_recipe(recipe, set_ or []), stage, processes)
    if as_json:
        print(json.dumps(asdict(memory) | {"total": memory.total, "precision": precision, "processes": processes}))
        return
    print(f"{stage}: the peak of a step in each of {counted(processes, 'process')}, {precision}")
    bytes_of = asdict(memory)
    copy = bytes_of.pop("checkpoint")
    for name, size in (bytes_of | {"total": memory.total}).items():
        print(f"  {name:12} {size / 2**20:10,.1f} MiB")
    print(f"  and {copy / 2**20:,.1f} MiB of the machine's memory for the copy that a checkpoint is written from "
          "(where there is no room for it, training waits until it is written)")
    if not memory.gradients:
        print("  (counted at the moment when most is held, which here comes before there are gradients)")


@estimate_app.command("corpus")
def estimate_corpus(
    recipe: Annotated[Path, typer.Argument(help="A recipe with a corpus stage.")],
    size: Annotated[str | None,
                    typer.Option("--input", help="Bytes as the documents are stored, such as 100TB; "
                                 "those of the recipe's documents unless given.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one a core.")] = 1,
    stage: Annotated[str | None, typer.Option(help="Which corpus stage; the first unless given.")] = None,
    kind: Annotated[str | None, typer.Option(help="pages or text; by the documents' names unless given.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the steps on a sample of the documents.")] = False,
    sample: Annotated[str, typer.Option(help="How much of them --measure reads.")] = "20MB",
    cores: Annotated[int, typer.Option(min=1, help="Cores of a machine.")] = 64,
    head_rate: Annotated[float, typer.Option(help="Megabytes a second in and out of the head machine.")] = 1000.0,
    core_hour: Annotated[float, typer.Option(help="Dollars for an hour of a core.")] = 0.04,
    disk_month: Annotated[float, typer.Option(help="Dollars for a month of a terabyte of disk.")] = 80.0,
    store_month: Annotated[float, typer.Option(help="Dollars for a month of a terabyte in an object store.")] = 23.0,
    network: Annotated[float, typer.Option(help="Dollars for a terabyte read.")] = 0.0,
    speed: Annotated[float, typer.Option(help="How many times as fast a core is as that of the rates.")] = 1.0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a setting. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Predict hours, machines, disk, network and money of a corpus of any size."""
    from trivium.planning import crawl
    from trivium.recipe.load import load_recipe
    loaded = load_recipe(recipe, set_ or [])
    chosen = crawl.corpus_stage(loaded, stage)
    if kind not in (None, *crawl.KINDS):
        raise TriviumError(f"--kind {kind}: known are {', '.join(crawl.KINDS)}")
    rates = crawl.measure(chosen, int(crawl.bytes_of(sample)), loaded.seed) if measure else crawl.rates_of(
        chosen, kind or crawl.kind_of(chosen))
    stored = crawl.bytes_of(size) if size is not None else crawl.stored_bytes(chosen)
    prices = crawl.Prices(core_hour, disk_month, store_month, network)
    for name, value in (("--head-rate", head_rate), ("--speed", speed)):
        if not value > 0:
            raise TriviumError(f"{name} {value}: must be above 0")
    found = crawl.estimate(rates, stored, workers, prices, cores, head_rate * 1e6, crawl.is_remote(chosen),
                           chosen.settings.shard_documents, speed)
    found["rates"] = crawl.described(rates, measure)
    print(json.dumps(found, indent=1) if as_json else crawl.describe(found))


def lesson(name: Annotated[str, typer.Argument(help="line, animals, digits or next-word.")],
           data: Annotated[Path | None, typer.Option(help="digits: a folder with MNIST's four IDX files.")] = None,
           out: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("runs"),
           seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
           set_: Annotated[list[str] | None,
                           typer.Option("--set", help="Override a setting: steps=50. Repeatable.")] = None,
           quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
           as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False) -> None:
    """Run a lesson on how models learn: line, animals, digits, next-word. It writes a page with drawings."""
    from trivium.lessons.run import run_lesson
    if data is not None and name != "digits":
        raise TriviumError(f"lesson {name}: --data is for the lesson digits alone")
    overrides = [*(set_ or []), *([f"data={json.dumps(str(data))}"] if data is not None else [])]
    artifact = run_lesson(name, overrides, out, seed, quiet)
    if as_json:
        print(json.dumps(artifact.summary, indent=1))
        return
    print(f"{name}: {artifact.manifest['seconds']:.0f} s; open {artifact.folder / 'index.html'}")


def scaling(rungs: Annotated[
    int, typer.Option(help="Models, the smallest first, 4 to 8; each costs about 3 times the one before.")] = 5,
            ratio: Annotated[float, typer.Option(help="Tokens for each parameter.")] = 20.0,
            documents_bytes: Annotated[
                int, typer.Option(min=100_000, help="Text of the embedded world to learn from.")] = 3_000_000,
            out: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("runs"),
            seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
            quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
            as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False) -> None:
    """Train a ladder of small models on the embedded world, fit loss against compute, and draw it."""
    from trivium.planning.scaling import ladder, run_ladder
    artifact = run_ladder(ladder(rungs, ratio, out, seed, documents_bytes), quiet)
    found = artifact.summary
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print(f"{'rung':8} {'parameters':>10} {'FLOPs':>9} {'passes':>6} {'loss':>7} {'bits/byte':>9}")
    for row in found["rungs"]:
        print(
            f"{row['rung']:8} {row['parameters']:>10,} {row['compute']:9.2g} {row['passes']:6.2f} {row['loss']:7.3f} "
            f"{row['bits_per_byte']:9.3f}"
        )
    law, told = found["law"], found["foretold"]
    print(
        f"loss = E + A·C^-α: α = {law['exponent']:.3f} [{law['exponent_interval'][0]:.3f}, "
        f"{law['exponent_interval'][1]:.3f}], "
        f"E = {law['irreducible']:.3f} [{law['irreducible_interval'][0]:.3f}, {law['irreducible_interval'][1]:.3f}]")
    print(
        f"{told['rung']} foretold by the others: {told['loss']:.3f} [{told['interval'][0]:.3f}, "
        f"{told['interval'][1]:.3f}], "
        f"measured {told['measured']:.3f}")
    print(f"open {artifact.folder / 'index.html'}")


def prompt(
    model: Annotated[Path, typer.Argument(help="A language model's folder.")],
    questions: Annotated[Path, typer.Option(help="The world's folder, or a JSONL file of questions.")],
    examples: Annotated[Path | None,
                        typer.Option(
                            help="Where the examples come from; the folder of the questions unless given.")] = None,
    method: Annotated[list[str] | None,
                      typer.Option(
                          help="zero-shot, few-shot, chain-of-thought, step-by-step; "
                          "the first three unless given. Repeatable.")] = None,
    task: Annotated[str | None,
                    typer.Option(help="Only questions and examples of this task, such as reasoning.")] = None,
    shots: Annotated[int, typer.Option(help="Examples before each question.")] = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="Most questions.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the choice of examples.")] = 0,
    as_json: Annotated[bool,
                       typer.Option("--json", help="Print everything as JSON, answers included.")] = False) -> None:
    """Compare ways to ask one model: with no examples, with some, with some that reason aloud."""
    from trivium.evaluation.prompting import METHODS, compare, read_examples, read_questions
    check_model(model)
    asked = read_questions(questions, task)[:limit]
    source = examples if examples is not None else questions
    shown = read_examples(source, task) if examples is not None or questions.is_dir() else []
    found = compare(model, asked, shown, method or list(METHODS)[:3], shots, max_new_tokens, seed)
    if as_json:
        print(to_json(found, 1))
        return
    print(counted(found["questions"], "question") + (f" ({found['left_out']} too long)" if found["left_out"] else "") +
          f", {shots} examples each")
    print(f"{'method':18} {'right':>26} {'tokens':>7}   difference from {found['first']}")
    for name, row in found["methods"].items():
        right, versus = row["right"], row["versus"]
        rate = f"{right['value']:.1%} [{right['low']:.1%}, {right['high']:.1%}]"
        print(f"{name:18} {rate:>26} {row['mean_tokens']:7.1f}   " + (
            f"{versus['value']:+.1%} [{versus['low']:+.1%}, {versus['high']:+.1%}]" if versus else "–"))
