"""How long a recipe will take on this machine, from a measurement of about ten seconds.

A small sample of the raw documents goes through the recipe's own stages up to the token ids. Then, for each shape and
batch that the recipe trains, a few true updates of a random model are timed, and some answers are sampled. The rest is
counting: how many updates, how many answers, how many tokens.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivium import randomness
from trivium.artifacts import Artifact
from trivium.data.readers import Document, find, read
from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.generation.engine import Sampling, generate
from trivium.lessons.digits import SMALL_DIGITS
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.model.folder import read_config
from trivium.model.images import data_url
from trivium.pipeline.one_stage import cores, need
from trivium.pipeline.run import run
from trivium.planning.families import predict_family
from trivium.planning.flops import parameters
from trivium.planning.inspection import config_of
from trivium.planning.measure import Sample, any_tokenizer, saving, steps_of, updates, with_saves
from trivium.recipe.load import Recipe
from trivium.stage import Stage
from trivium.stages.data.corpus import Corpus
from trivium.stages.data.imports import Imports
from trivium.stages.data.labels import Labels
from trivium.stages.data.pairs import Pairs
from trivium.stages.data.pictures import Pictures, drawn_shapes
from trivium.stages.data.tokenizer import Tokenizer
from trivium.stages.data.tokens import Tokens
from trivium.stages.data.world import World
from trivium.stages.finetuning.sft import Sft, conversation
from trivium.stages.preferences.dpo import DirectPreference, Dpo
from trivium.stages.preferences.kto import Kto
from trivium.stages.preferences.preferences import Preferences
from trivium.stages.preferences.reward import Ranking, Reward, add_pairs
from trivium.stages.preferences.select import Select
from trivium.stages.pretraining.pretrain import LanguageModelling, Pretrain, pieces
from trivium.stages.reinforcement.grpo import GroupSurrogate, Grpo
from trivium.stages.reinforcement.ppo import ClippedSurrogate, PolicyAndValue, Ppo, apart, log_probs_of
from trivium.stages.results.evaluate import Evaluate
from trivium.stages.results.report import Report
from trivium.stages.rows import rows_of as read_some
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens as TokenFiles
from trivium.training.batch import Batch, Tree, make_batch, map_trees, pack
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import prepare
from trivium.training.trainer import Trainer
from trivium.world import rubric

SAMPLE_BYTES = 150_000
"""Raw text that is sampled."""

DISTINCT = 0.83
"""Share of the responses sampled for a ranking that differ from the others, as in the quickstart."""

DATA = (World, Imports, Labels, Pairs, Pictures, Corpus, Tokenizer, Tokens)

PICTURES = 320
"""Pictures that are sampled."""


def predict(recipe: Recipe) -> dict[str, Any]:
    """``{"seconds", "not_predicted", "measured_seconds", "stages": [{"stage", "kind", "seconds", "from"}]}``: the time
    of every stage from the beginning, finished artifacts not counted. Raises :class:`TriviumError` for a recipe whose
    data cannot be sampled."""
    begun = time.monotonic()
    device = prepare(cores(recipe))
    with tempfile.TemporaryDirectory() as folder:
        sample = sampled(recipe, Path(folder), device)
        rows: list[dict[str, Any]] = []
        for name, stage in recipe.stages.items():
            torch.set_num_threads(need(recipe, stage))
            seconds, how = predict_stage(recipe, name, stage, sample)
            rows.append({"stage": name, "kind": stage.kind, "seconds": seconds, "from": how})
    torch.set_num_threads(cores(recipe))
    return {
        "seconds": elapsed(recipe, {row["stage"]: row["seconds"] or 0.0
                                    for row in rows}),
        "not_predicted": [row["stage"] for row in rows
                          if row["seconds"] is None], "measured_seconds": time.monotonic() - begun, "stages": rows
    }


def elapsed(recipe: Recipe, seconds: dict[str, float]) -> float:
    """How long the stages take together, those that leave cores free side by side, each begun as
    :func:`trivium.pipeline.workers.run_beside` would."""
    now, waiting, ends = 0.0, list(seconds), dict[str, float]()
    while waiting:
        for name in list(waiting):
            stage = recipe.stages[name]
            free = cores(recipe) - sum(need(recipe, recipe.stages[other]) for other, end in ends.items() if end > now)
            if need(recipe, stage) <= free and all(
                    ends.get(made, math.inf) <= now for _, made in stage.references() if made in seconds):
                waiting.remove(name)
                ends[name] = now + seconds[name]
        now = min((end for end in ends.values() if end > now), default=now)
    return max(ends.values(), default=0.0)


def sampled(recipe: Recipe, folder: Path, device: torch.device) -> Sample:
    """Run the data stages on a sample of the documents. Tables of labelled texts and of pairs are read in full
    first."""

    def small(stages: dict[str, Stage]) -> dict[str, Artifact]:
        return run(
            Recipe.model_construct(**{**recipe.model_dump(exclude={"stages"}), "out": str(folder / "runs")},
                                   stages=stages)) if stages else {}

    tables = small({name: stage for name, stage in recipe.stages.items() if isinstance(stage, (Labels, Pairs))})
    stages: dict[str, Stage] = {}
    factor: dict[str, float] = {}
    for name, stage in recipe.stages.items():
        if isinstance(stage, World):
            size = min(SAMPLE_BYTES, stage.size.documents_bytes)
            factor[name] = stage.size.documents_bytes / size
            stages[name] = stage.model_copy(update={"size": replace(stage.size, documents_bytes=size)})
        elif isinstance(stage, Corpus):
            documents, factors = [], []
            for i, reference in enumerate(stage.documents):
                if reference in recipe.stages and reference not in tables:
                    documents.append(reference)
                    factors.append(factor.get(reference, 1.0))
                else:
                    place = tables[reference].folder / "documents" if reference in tables else Path(reference)
                    kept, times = some_documents(place, folder / f"{name}-{i}.jsonl")
                    documents.append(str(kept))
                    factors.append(times)
            factor[name] = statistics.mean(factors) if factors else 1.0
            # Learned filters are not trained for the sample, so it does without them.
            stages[name] = stage.model_copy(update={"documents": documents} | {
                field: None
                for field in ("quality_filter", "harmful_filter") if getattr(stage, field) in recipe.stages
            })
        elif isinstance(stage, (Tokenizer, Tokens)):
            factor[name] = factor.get(stage.corpus, 1.0)
            stages[name] = stage
        elif isinstance(stage, (Imports, Labels, Pairs)):
            factor[name] = 1.0
            stages[name] = stage
        elif isinstance(stage, Pictures):
            digits = stage.digits if stage.mnist else min(stage.digits, SMALL_DIGITS[0])
            factor[name] = max(1.0, (digits + stage.shapes) / PICTURES)
            stages[name] = stage.model_copy(
                update={
                    field: max(1, round(count / factor[name]))
                    for field, count in (("digits", digits), ("shapes", stage.shapes), ("heldout", stage.heldout))
                })
    artifacts = small(stages)
    return Sample(folder, {name: a.folder
                           for name, a in artifacts.items()},
                  {name: float(a.manifest["seconds"])
                   for name, a in artifacts.items()}, factor, cores(recipe), device)


def some_documents(path: Path, sample: Path) -> tuple[Path, float]:
    """Write the first documents of evenly spread files, :data:`SAMPLE_BYTES` of them; returns the file and how many
    times more bytes the files have."""
    files = find([path])
    if not files:
        raise TriviumError(f"{path}: no documents to sample")
    total = sum(file.path.stat().st_size for file in files)
    chosen = files[::max(1, len(files) // 20)]
    texts: list[dict[str, Any]] = []
    written = 0
    packed = 1.0
    for file in chosen:
        own = 0
        for document in read(file):
            if isinstance(document, Document) and (document.text or document.html):
                texts.append({"text": document.text or document.html})
                own += len(texts[-1]["text"].encode())
            if own > SAMPLE_BYTES / len(chosen):
                break
        written += own
        if file.path.suffix in (".gz", ".zst", ".zip"):
            packed = 3.0  # text packs to about a third
    write_rows(sample, texts)
    return sample, max(1.0, packed * total / max(1, written))


def predict_stage(recipe: Recipe, name: str, stage: Stage, sample: Sample) -> tuple[float | None, str]:
    """Seconds of one stage, None where they are not predicted, and what they were reckoned from."""
    if isinstance(stage, Pictures):  # all of MNIST is read for the sample too
        rest = (1 - 1 / sample.factor[name]) * (stage.digits + stage.shapes + 2 * stage.heldout)
        return sample.seconds[name] + rest * drawing(stage, sample), f"a sample of 1/{sample.factor[name]:.3g}"
    if isinstance(stage, DATA):
        seconds = sample.seconds[name]
        # the rest is beginnings: processes, tables, names
        grows = 0.15 if isinstance(stage, (World, Imports, Labels, Pairs, Tokenizer)) else 0.5
        return seconds * (1 + grows * (sample.factor[name] - 1)), f"a sample of 1/{sample.factor[name]:.3g}"
    if isinstance(stage, Pretrain):
        return pretrain(recipe, stage, sample)
    if isinstance(stage, Sft):
        return sft(recipe, stage, sample)
    family = predict_family(recipe, name, stage, sample)
    if family is not None:
        return family
    if isinstance(stage, Preferences):
        count = stage.count * (stage.fewest + stage.most) / 2
        seconds = answers(recipe, stage.model, stage.prompts, count, stage.max_new_tokens, 0, sample)
        return seconds + 2 * DISTINCT * count * judging(recipe, stage.prompts,
                                                        sample), f"{count:,.0f} answers, each judged twice"
    if isinstance(stage, (Reward, Dpo, Kto)):
        return ranked(recipe, stage, sample)
    if isinstance(stage, Ppo):
        return ppo(recipe, stage, sample)
    if isinstance(stage, Grpo):
        return grpo(recipe, stage, sample)
    if isinstance(stage, Select):
        config = model_config(recipe, stage.model)
        count = stage.count * stage.samples
        seconds = answers(recipe, stage.model, stage.prompts, count, stage.max_new_tokens, 0,
                          sample) + count * reading(recipe, config, stage.length, sample)
        return seconds + 1.0, f"{count:,} answers, each scored"
    if isinstance(stage, Evaluate):
        return evaluate(recipe, stage, sample)
    if isinstance(stage, Report):
        return 1.0, "a fixed time"
    return None, f"a stage of kind {stage.kind!r} is not predicted"


def drawing(stage: Pictures, sample: Sample) -> float:
    """Seconds to draw and encode a picture."""

    def measure() -> float:
        begun = time.monotonic()
        for _, pixels, *_ in drawn_shapes("train", 50, stage.most, 0):
            data_url(pixels)
        return (time.monotonic() - begun) / 50

    return sample.once(("drawing", stage.most), measure)


def pretrain(recipe: Recipe, stage: Pretrain, sample: Sample) -> tuple[float, str]:
    """Updates, and the measurement on held-out documents."""
    tokens = sample.place(stage.tokens)
    tokenizer = ChatTokenizer.load(sample.place(stage.tokenizer))
    batches = PackedEpochs(pieces(TokenFiles.open(tokens / "train", tokenizer.digest), tokenizer, stage.length),
                           stage.length, stage.rows, recipe.seed)
    factor = sample.factor.get(stage.tokens, 1.0)
    config = config_of(recipe, stage)
    epoch = steps_of(1, batches, factor)
    steps = stage.steps if stage.steps is not None else steps_of(stage.epochs, batches, factor)
    each = updates(("pretrain", config, stage.length, stage.rows, stage.optimization.optimizer),
                   lambda: LanguageModel(config).initialise(0), LanguageModelling(), batches, stage.optimization,
                   sample)
    tokens_stage = recipe.stages.get(stage.tokens)
    heldout = tokens_stage.validation / (1 - tokens_stage.validation) * epoch / 3 if isinstance(tokens_stage,
                                                                                                Tokens) else 0.0
    return with_saves(
        steps * each, steps, parameters(config),
        sample) + heldout * each + 1.0, f"{steps:,} updates of {each * 1000:.0f} ms, and the held-out text"


def demonstrations(reference: str, sample: Sample) -> list[dict[str, Any]]:
    """The demonstrations that a stage learns from."""
    return read_some(sample.place(reference), "demonstrations.jsonl", ["messages"], _quiet(sample))


def _quiet(sample: Sample) -> Any:
    from trivium.progress import Progress
    from trivium.stage import Context
    nowhere = Path("/nonexistent")
    return Context("", "", 0, {}, nowhere, nowhere, Progress(quiet=True), sample.threads)


def sft(recipe: Recipe, stage: Sft, sample: Sample) -> tuple[float, str]:
    """Updates on the demonstrations."""
    config = config_of(recipe, stage)
    length = min(stage.length, config.max_positions)
    tokenizer = any_tokenizer(sample, stage.model)
    trees = [
        tree for row in demonstrations(stage.demonstrations, sample)
        if any(m["role"] == "assistant"
               for m in row["messages"]) and len(tree := conversation(tokenizer, row["messages"])) <= length
    ]
    if not trees:
        raise TriviumError(f"estimate: no demonstration fits rows of {length} tokens")
    batches = PackedEpochs(trees, length, stage.rows, recipe.seed)
    steps = max(1, round(stage.epochs * batches.steps_per_epoch))
    each = updates(
        ("sft", config, length, stage.rows, stage.optimization.optimizer), lambda: LanguageModel(config).initialise(0),
        LanguageModelling(), batches, stage.optimization, sample)
    return with_saves(steps * each, steps, parameters(config),
                      sample) + 0.5, f"{steps:,} updates of {each * 1000:.0f} ms"


def lengths(recipe: Recipe, sample: Sample) -> tuple[float, float, list[list[int]], list[list[int]]]:
    """Mean tokens of a prompt and of a response, and some of both, from whatever demonstrations there are."""
    for stage in recipe.stages.values():
        if isinstance(stage, Sft):
            tokenizer = any_tokenizer(sample, stage.model)
            trees = [
                conversation(tokenizer, row["messages"]) for row in demonstrations(stage.demonstrations, sample)[:600]
                if any(m["role"] == "assistant" for m in row["messages"])
            ]
            return (float(np.mean([len(t.prompt) for t in trees])), float(np.mean([len(t.responses[0])
                                                                                   for t in trees])),
                    [t.prompt.tolist() for t in trees], [t.responses[0].tolist() for t in trees])
    return 40.0, 40.0, [[0] * 40] * 64, [[0] * 40] * 64


def model_config(recipe: Recipe, reference: str) -> ModelConfig:
    """The shape of the model of a stage, or of a folder."""
    stage = recipe.stages.get(reference)
    return config_of(recipe, stage) if stage is not None else read_config(Path(reference))[0]  # type: ignore[arg-type]


def answers(recipe: Recipe, model: str, prompts: str, count: float, longest: int, shots: int, sample: Sample) -> float:
    """Seconds to sample so many answers. The random model is made to stop at random, as often as demonstrations end;
    ``shots`` examples stand before each prompt."""
    config = model_config(recipe, model)
    _, r, asked, said = lengths(recipe, sample)
    together = 128 if count <= 128 else 256

    def measure() -> float:
        made = LanguageModel(config).initialise(0).to(sample.device)
        before = [token for pair in zip(asked[:shots], said[:shots], strict=True) for part in pair for token in part]
        room = config.max_positions - longest - 1
        texts = [(before + asked[i % len(asked)])[-room:] for i in range(together)]
        stop = randomness.numpy(0, "stop").permutation(
            config.vocab_size)[:max(1, round(config.vocab_size / min(r, longest)))]
        generate(made, texts[:2], Sampling(max_new_tokens=2), stop.tolist())
        begun = time.monotonic()
        generate(made, texts, Sampling(max_new_tokens=longest), stop.tolist())
        return time.monotonic() - begun

    return sample.once(("answers", config, longest, together, shots), measure) * count / together


def ranked(recipe: Recipe, stage: Reward | Dpo | Kto, sample: Sample) -> tuple[float, str]:
    """Updates on rankings, or on thumbs, and passes over them without gradients. KTO reads the responses to other
    prompts too, in each update and for its reference."""
    config = model_config(recipe, stage.model)
    length = min(stage.length, config.max_positions)
    given = stage.feedback if isinstance(stage, Kto) else stage.preferences
    source = recipe.stages.get(given)
    count, heldout, responses = 1000.0, 0.2, 2.0
    if isinstance(source, Preferences):
        count, heldout, responses = source.count, source.heldout, max(2.0, (source.fewest + source.most) / 2 * DISTINCT)
    elif isinstance(source, Imports):
        from trivium.stages.preferences.reward import rankings
        rows = rankings(sample.place(given), _quiet(sample))
        heldout = sum(row["split"] == "heldout" for row in rows) / len(rows)
        count, responses = len(rows), float(np.mean([len(row["responses"]) for row in rows]))
    p, r, asked, said = lengths(recipe, sample)
    size = p + r * responses
    steps = max(1, round(stage.epochs * count * (1 - heldout) * size / (length * stage.rows * 0.95)))
    k = max(2, round(responses))
    trees = [
        Tree(np.array(asked[i % len(asked)], np.int64),
             tuple(np.array(said[(i * k + j) % len(said)], np.int64)
                   for j in range(k)), payload=[[j] for j in range(k)]) for i in range(200)
    ]

    def finish(batch: Batch) -> None:
        add_pairs(batch)
        batch.extra["reference"] = torch.zeros(len(batch.ends))

    batches = PackedEpochs([tree for tree in trees if len(tree) <= length], length, stage.rows, 0, finish)
    objective: Any = Ranking() if isinstance(
        stage, Reward) else DirectPreference(stage) if isinstance(stage, Dpo) else LanguageModelling()

    def model() -> Any:
        made = LanguageModel(config).initialise(0)
        return RewardModel.from_language_model(made, 0) if isinstance(stage, Reward) else made

    each = updates((stage.kind, config, length, stage.rows), model, objective, batches, stage.optimization, sample)
    passes = (heldout + 500 / count if isinstance(stage, Reward) else
              (1 - heldout) * (1 + isinstance(stage, Kto)) + 2 * heldout) / (1 - heldout) / stage.epochs
    seconds = steps * each * (1 + (passes + isinstance(stage, Kto)) / 3) + 1.0
    if isinstance(stage, Reward) and isinstance(source, Preferences):
        seconds += count * heldout * responses * judging(recipe, source.prompts, sample)
    return seconds, f"{steps:,} updates of {each * 1000:.0f} ms, and passes without gradients"


def judging(recipe: Recipe, prompts: str, sample: Sample) -> float:
    """Seconds in which the rubric judges an answer."""
    rows = read_some(sample.place(prompts), "prompts.jsonl", ["id", "prompt", "truth"], _quiet(sample))[:100]
    said = [row["messages"][-1]["content"] for row in demonstrations(prompts, sample)[:100]]

    def measure() -> float:
        begun = time.monotonic()
        for row, text in zip(rows, said, strict=False):
            rubric.score(row, text)
        return (time.monotonic() - begun) / len(rows)

    return sample.once(("judging", prompts), measure)


def reading(recipe: Recipe, config: ModelConfig, length: int, sample: Sample) -> float:
    """Seconds for the log-probabilities of one answer."""
    _, _, asked, said = lengths(recipe, sample)
    trees = [
        Tree(np.array(asked[i % len(asked)], np.int64), (np.array(said[i % len(said)], np.int64),)) for i in range(64)
    ]
    trees = [tree for tree in trees if len(tree) <= length]

    def measure() -> float:
        policy = LanguageModel(config).initialise(0).to(sample.device).eval()
        begun = time.monotonic()
        map_trees(lambda batch: log_probs_of(policy, batch, 1.0), trees, length, 16, sample.device, per_token=True)
        return (time.monotonic() - begun) / len(trees)

    return sample.once(("reading", config, length), measure)


def ppo(recipe: Recipe, stage: Ppo, sample: Sample) -> tuple[float, str]:
    """Each iteration: answers, four passes without gradients, updates of two models. One update and one pass are
    timed."""
    config = model_config(recipe, stage.model)
    _, _, asked, said = lengths(recipe, sample)
    length = min(stage.length, config.max_positions)
    each = max(1, stage.episodes // stage.minibatches)
    trees = [
        Tree(np.array(asked[i % len(asked)], np.int64), (np.array(said[i % len(said)], np.int64),)) for i in range(each)
    ]
    trees = [tree for tree in trees if len(tree) <= length]

    def update() -> float:
        policy = LanguageModel(config).initialise(0)
        pair = PolicyAndValue(policy, RewardModel.from_language_model(policy, 0)).to(sample.device)
        trainer = Trainer(pair, stage.optimization, 1000)
        times = []
        for step in range(3):
            batch = make_batch([[trees[i] for i in row] for row in pack([len(tree) for tree in trees], length)], length)
            batch.extra = {
                name: torch.zeros(len(batch.targets))
                for name in ("log_probs", "values", "advantages", "returns")
            }
            begun = time.monotonic()
            trainer.step(step, apart(batch), ClippedSurrogate(stage))
            times.append(time.monotonic() - begun)
        return statistics.mean(times[1:])

    roll = answers(recipe, stage.model, stage.prompts, stage.episodes, stage.max_new_tokens, 0, sample)
    learn = stage.epochs * stage.minibatches * sample.once(("ppo", config, length, each), update)
    learn += 4 * stage.episodes * reading(recipe, config, length, sample)
    return stage.iterations * (
        roll + learn + 2 * saving(parameters(config), sample)
    ) + 1.0, f"{stage.iterations} iterations of {roll:.1f} s of answers and {learn:.1f} s of learning"


def grpo(recipe: Recipe, stage: Grpo, sample: Sample) -> tuple[float, str]:
    """Each iteration: groups of answers, two passes without gradients (three with a reward model), updates of the
    policy. One update and one pass are timed."""
    config = model_config(recipe, stage.model)
    _, _, asked, said = lengths(recipe, sample)
    length = min(stage.length, config.max_positions)
    each = max(1, stage.episodes // stage.minibatches)
    trees = [
        Tree(np.array(asked[i % len(asked)], np.int64),
             tuple(np.array(said[(i * stage.samples + k) % len(said)], np.int64) for k in range(stage.samples)))
        for i in range(each)
    ]
    trees = [tree for tree in trees if len(tree) <= length
             ] or [Tree(np.zeros(1, np.int64), (np.zeros(length - 1, np.int64),))]

    def update() -> float:
        trainer = Trainer(LanguageModel(config).initialise(0).to(sample.device), stage.optimization, 1000)
        times = []
        for step in range(3):
            batch = make_batch([[trees[i] for i in row] for row in pack([len(tree) for tree in trees], length)], length)
            batch.extra = {name: torch.zeros(len(batch.targets)) for name in ("log_probs", "reference", "advantages")}
            begun = time.monotonic()
            trainer.step(step, [batch], GroupSurrogate(stage))
            times.append(time.monotonic() - begun)
        return statistics.mean(times[1:])

    count = stage.episodes * stage.samples
    roll = answers(recipe, stage.model, stage.prompts, count, stage.max_new_tokens, 0, sample)
    learn = stage.epochs * stage.minibatches * sample.once(("grpo", config, length, each, stage.samples), update)
    learn += (3 if stage.reward else 2) * count * reading(recipe, config, length, sample)
    return stage.iterations * (
        roll + learn + 2 * saving(parameters(config), sample)
    ) + 1.0, f"{stage.iterations} iterations of {roll:.1f} s of answers and {learn:.1f} s of learning"


def evaluate(recipe: Recipe, stage: Evaluate, sample: Sample) -> tuple[float, str]:
    """Two answers to each prompt by each model, and two passes over the sampled ones."""
    world = recipe.stages.get(stage.prompts)
    count: float = world.size.evaluation_prompts if isinstance(world, World) else len(
        read_some(sample.place(stage.prompts), "evaluation.jsonl", ["prompt"], _quiet(sample)))
    count = min(count, stage.limit or count)
    known = isinstance(world, World)
    seconds = 0.0
    for model in stage.models.values():
        seconds += answers(recipe, model, stage.prompts, count * (2 if known else 1), stage.max_new_tokens, 0, sample)
    if stage.base and known:
        seconds += answers(recipe, stage.base, stage.prompts, count, stage.max_new_tokens, stage.shots, sample)
        seconds += 3 * len(stage.models) * count * judging(recipe, stage.prompts, sample)
    for name, model in stage.models.items():
        if name != stage.baseline:  # how far it has drifted: two passes over its answers
            config = model_config(recipe, model)
            seconds += 2 * count * reading(recipe, config, min(256, config.max_positions), sample)
    return seconds, f"{len(stage.models)} models, {count:,.0f} prompts"
