"""The settings of every stage. A recipe is made of these; their descriptions are its reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trivium.corpus.classifier import FeatureSettings
from trivium.corpus.settings import CorpusSettings
from trivium.errors import TriviumError, nearest
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.config import EncoderConfig, EncoderDecoderConfig, ModelConfig, VisionConfig
from trivium.recipe_base import Input, Stage
from trivium.stages.phrasings import Phrasing
from trivium.training.settings import Optimization, Parallel, Precision
from trivium.world.source import WorldSettings


class World(Stage):
    """Write the embedded world: raw documents, demonstrations, prompts, and the truth about them."""

    kind: ClassVar[str] = "world"
    size: WorldSettings = WorldSettings()
    """How big the world is."""


class Source(BaseModel):
    """How the rows of one source are read and how many of them are used."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True, coerce_numbers_to_str=True)

    weight: float | None = Field(None, gt=0)
    """Share of the mixture, relative to the other sources' weights (1 where others have one); null for all: every row once."""
    limit: int | None = Field(None, ge=1)
    """Most rows of it, chosen by a hash; null for all."""
    split: str | None = None
    """Read only files whose name has this word, as the splits of a data set's folder have."""
    columns: dict[str, str] = {}
    """Names of fields and the columns they are found in, as in `{text: review}`."""
    values: dict[str, str] = {}
    """Fields that all rows share, as in `{language: French}`."""
    labels: dict[str, str] = {}
    """The values that the field `label` may have, and what each is called; a row with another is rejected."""
    templates: str | list[Phrasing] = []
    """Phrasings that turn a row into a conversation: a family's name (classification, judgement, extraction, translation, reasoning,
    reasoning-steps; with -zh in Chinese) or Jinja texts of your own. Which one a row gets depends on a hash of it."""
    prompts: bool = False
    """Its questions become prompts to practise on too, each with its row's `answer` to check by (of GSM8K's, what stands after ####); those of the held-out
    share are for the evaluation, and are no demonstrations."""


class Imports(Stage):
    """Bring demonstrations and comparisons of other formats into this system's own."""

    kind: ClassVar[str] = "imports"
    demonstrations: list[Input] | dict[str, Input] = []
    """Files or folders of demonstrations, each under a name of your own where `sources` is to say more about it: chat messages, ShareGPT,
    Alpaca, GSM8K, prompt/completion, CSV with named columns, folders of Parquet."""
    sources: dict[str, Source] = {}
    """How to read the demonstrations of that name, and their weight in the mixture."""
    rows: int | None = Field(None, ge=1)
    """Rows of the mixture; null for as many as the sources have together."""
    comparisons: list[Input] = []
    """Files or folders of comparisons: rankings, prompt/chosen/rejected, Anthropic's HH dialogues."""
    demonstrations_limit: int | None = None
    """Most demonstrations to keep, chosen by a hash of the row; null keeps all."""
    comparisons_limit: int | None = None
    """Most comparisons to keep, chosen by a hash of the row; null keeps all."""
    heldout: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts, chosen by a hash, that is kept from training for the evaluation."""


class Corpus(Stage):
    """Clean raw documents: extraction, languages, quality, harm, duplicates, private data, decontamination, mixture."""

    kind: ClassVar[str] = "corpus"
    unlearned: ClassVar[frozenset[str]] = frozenset({"workers", "executor"})
    documents: list[Input] = ["world"]
    """Raw documents: earlier stages, folders, files, globs or archives."""
    evaluation: Input | list[Input] | None = None
    """Stages whose evaluation prompts must not occur in the corpus, or files of evaluation texts (JSON, JSON lines, Parquet, CSV)."""
    quality_filter: Input | None = None
    """A filter stage, or the folder of a learned filter, that finds good documents."""
    harmful_filter: Input | None = None
    """A filter stage, or the folder of a learned filter, that finds harmful documents."""
    term_lists: list[Input] = []
    """Files of harmful terms, one a line, with a weight after a tab where it is not 1; '#' begins a comment."""
    blocked_domains: list[Input] = []
    """Files of domains, one a line, whose pages are rejected, subdomains included."""
    settings: CorpusSettings = CorpusSettings()
    """The steps and their thresholds."""
    workers: int | None = Field(None, ge=1)
    """Processes; null takes the recipe's threads. They change no byte of the corpus."""
    executor: Literal["local", "ray"] = "local"
    """Where the tasks run: in processes of this machine, or on a Ray cluster (extra `distributed`), whose machines must share the folder
    of the results and see the documents under the same paths."""


class Filter(Stage):
    """Train a filter of documents: logistic regression on hashed n-grams, from good and bad examples."""

    kind: ClassVar[str] = "filter"
    finds: Literal["good", "harmful"] = "good"
    """What its probability is about: good documents (a corpus's `quality_filter`) or harmful ones (its `harmful_filter`)."""
    sought: list[Input] = []
    """Documents of the kind that it finds."""
    other: list[Input] = []
    """Documents of the other kind; for good ones, random web pages."""
    rows: list[Input] = []
    """Instead of both, files of labelled rows (JSON, JSON lines, Parquet, CSV)."""
    text: str = "text"
    """The rows' field with the text."""
    label: str = "label"
    """The rows' field with the label."""
    labels: list[str] = []
    """The labels of the kind that it finds; all others are of the other kind."""
    limit: int | None = Field(50_000, ge=2)
    """Most examples of a kind, chosen by a hash of the text; null takes all."""
    heldout: float = Field(0.2, gt=0, lt=1)
    """Share of the examples, chosen by a hash, that is kept from training to measure the filter."""
    regularization: float = Field(10.0, gt=0)
    """Inverse strength of the L2 penalty (scikit-learn's C)."""
    features: FeatureSettings = FeatureSettings()
    """What it sees of a text."""

    @model_validator(mode="after")
    def _one_way(self) -> Filter:
        if bool(self.rows) == bool(self.sought or self.other) or bool(self.sought) != bool(self.other):
            raise ValueError("give `sought` and `other`, or `rows` with `labels`")
        if self.rows and not self.labels:
            raise ValueError("`labels` names the labels of what is sought, such as [harmful]")
        return self


class Tokenizer(Stage):
    """Train a byte-level BPE tokenizer on a corpus."""

    kind: ClassVar[str] = "tokenizer"
    corpus: Input = "corpus"
    """The clean documents."""
    vocab_size: int = Field(2048, ge=262)
    """Entries, the six special tokens included."""
    sample_bytes: int | None = Field(None, ge=1)
    """About how much of the corpus to learn from, chosen by a hash of the text; null takes all. A few gigabytes are plenty."""


class Tokens(Stage):
    """Turn a corpus into token ids, ready to be mapped into memory."""

    kind: ClassVar[str] = "tokens"
    corpus: Input = "corpus"
    """The clean documents."""
    tokenizer: Input = "tokenizer"
    """The tokenizer."""
    validation: float = Field(0.03, gt=0, lt=0.5)
    """Share of the documents, chosen by a hash, that is kept for validation."""


class Training(Stage):
    """What every stage that trains a model has in common."""

    optimization: Optimization = Optimization()
    """The optimizer and its schedule."""
    length: int = Field(256, ge=2)
    """Tokens in one packed row: the longest sequence that can be trained on."""
    rows: int = Field(16, ge=1)
    """Packed rows in a batch."""
    precision: Precision = "auto"
    """Number format of the products. float32; bf16: autocast; bf16-weights: weights in bf16 with float32 masters; auto: bf16 where the
    hardware multiplies it natively, else float32."""


class Looped(Training):
    """What stages have in common that are nothing but the training loop."""

    unlearned: ClassVar[frozenset[str]] = frozenset({"parallel", "track"})
    parallel: Parallel = Parallel()
    """Processes, memory and compilation."""
    track: bool = False
    """Write TensorBoard's files too, into the model's folder; needs the extra `track`."""
    alone: ClassVar[bool] = False
    """Whether the stage is trained in one process only."""

    @property
    def shared(self) -> tuple[int, str]:
        """Into how many slices an update can be cut, and what they are slices of."""
        return self.rows, "rows; raise `rows`"

    def check_processes(self, processes: int) -> None:
        """Raise :class:`TriviumError` where so many processes cannot share an update, or each matrix."""
        if processes > 1 and (self.alone or getattr(self, "adapter", None) is not None):
            raise TriviumError(f"{'it is' if self.alone else 'adapters are'} trained in one process; start it without torchrun")
        each = self.parallel.tensor_parallel
        if processes % each:
            raise TriviumError(f"tensor_parallel is {each}, which does not divide {processes} processes; start a multiple of it with torchrun")
        if processes // each > self.shared[0]:
            raise TriviumError(f"{processes // each} processes cannot share a batch of {self.shared[0]} {self.shared[1]} or start fewer")


class FromText(Looped):
    """What models that begin with random weights and read the corpus have in common."""

    tokens: Input = "tokens"
    """The tokenised corpus."""
    tokenizer: Input = "tokenizer"
    """The tokenizer, which becomes part of the model's folder."""
    epochs: float = Field(1.0, ge=0)
    """Passes over the corpus; 0 leaves the model random."""
    steps: int | None = Field(None, ge=0)
    """Updates, instead of epochs."""
    evaluate_every: int = Field(0, ge=0)
    """Updates between two measurements of the held-out loss (of a decoder, with a sample text) in log.jsonl; 0 for none."""


class Pretrain(FromText):
    """Train a decoder from random weights to predict the next token of the corpus."""

    kind: ClassVar[str] = "pretrain"
    model: ModelConfig = ModelConfig()
    """The model's shape; vocab_size is taken from the tokenizer."""

    @model_validator(mode="after")
    def _rows_have_positions(self) -> Pretrain:
        if self.length > self.model.max_positions:
            raise ValueError(f"rows of {self.length} tokens, but the model has {self.model.max_positions} positions; raise model.max_positions or lower length")
        return self


class Rehearsal(BaseModel):
    """What keeps a model from forgetting."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    share: float = Field(0.2, gt=0, lt=1)
    """Share of the training conversations that are of the past."""
    generated: bool = False
    """Take what the starting model itself asks and answers (LAMOL, Sun et al. 2020) instead of `earlier` rows."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest generated question, and longest generated answer, in tokens."""


class Sft(Looped):
    """Fine-tune a model on demonstrations; only the assistant's words carry loss."""

    kind: ClassVar[str] = "sft"
    model: Input = "pretrain"
    """The model to start from."""
    demonstrations: Input = "world"
    """Demonstrations: an earlier stage or a JSONL file of chat messages."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the demonstrations."""
    evaluate_every: int = Field(0, ge=0)
    """Updates between two sample answers in log.jsonl, and two measurements of the held-out loss; 0 for no samples, and a measurement
    four times a pass where there is `validation`."""
    adapter: AdapterSettings | None = None
    """Train an adapter beside the frozen model; null trains all weights."""
    too_long: Literal["leave out", "cut"] = "leave out"
    """Conversations longer than a row: left out and listed with the rejects, or cut at its end (and so without the token that ends them)."""
    validation: float = Field(0.0, ge=0, lt=0.5)
    """Share of the demonstrations, chosen by a hash, that is held out; the checkpoint of the lowest loss on it is the one kept."""
    patience: int = Field(0, ge=0)
    """Measurements without a lower held-out loss after which training stops; 0 goes on to the end."""
    earlier: dict[str, Input] = {}
    """Demonstrations that the model learned from before, each under a name: right answers to some of them are counted before and after."""
    rehearsal: Rehearsal | None = None
    """Mix what was learned before into the demonstrations; null does not."""
    prompt_loss: float = Field(0.0, ge=0)
    """Weight of a loss on the questions too (LAMOL: 0.25): with it the model learns to ask, and can generate its own rehearsal later."""

    @model_validator(mode="after")
    def _rehearsal_has_rows(self) -> Sft:
        if self.rehearsal and not self.rehearsal.generated and not self.earlier:
            raise ValueError("rehearsal needs `earlier` demonstrations, or `generated: true`")
        if self.patience and not self.validation:
            raise ValueError("patience needs a share of `validation`")
        return self


class Preferences(Stage):
    """Sample several responses to each prompt and have them ranked by the panel of simulated annotators."""

    kind: ClassVar[str] = "preferences"
    model: Input = "sft"
    """The model whose responses are ranked."""
    prompts: Input = "world"
    """A stage with prompts."""
    count: int = Field(600, ge=1)
    """Prompts to collect rankings for."""
    skip: int = Field(0, ge=0)
    """Prompts to pass over first, such as those of earlier rounds."""
    fewest: int = Field(4, ge=2)
    """Fewest responses to one prompt."""
    most: int = Field(9, ge=2)
    """Most responses to one prompt."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response, in tokens."""
    heldout: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts kept for the evaluation of the reward model."""
    annotators: int = Field(5, ge=1)
    """Annotators on the panel; two of them rank each prompt, and the first one's ranking counts."""
    noise: float = Field(1.7, ge=0)
    """Standard deviation of a judgement, in points of the rubric (8 in all). The more alike the responses, the less of it
    makes two annotators agree on 73 % of their pairs, as people do (InstructGPT)."""


    @model_validator(mode="after")
    def _in_order(self) -> Preferences:
        if self.fewest > self.most:
            raise ValueError(f"fewest ({self.fewest}) is more than most ({self.most})")
        return self


class Reward(Looped):
    """Train a reward model on rankings, every response encoded once and every prompt computed once."""

    kind: ClassVar[str] = "reward"
    model: Input = "sft"
    """The model whose trunk it starts from."""
    preferences: Input = "preferences"
    """A stage with rankings."""
    demonstrations: Input | None = None
    """Demonstrations whose mean score becomes 0; the preferences' best responses when null."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the rankings; more than one overfits (InstructGPT)."""
    adapter: AdapterSettings | None = None
    """Train an adapter and the head beside the frozen model; null trains all weights."""
    loss: Literal["ranking", "regression"] = "ranking"
    """ranking: InstructGPT's, over all pairs; regression: the squared error of ratings 1 to 7, to compare with."""
    margin: float = Field(0.0, ge=0)
    """ranking: a pair's scores are to differ by this much for each point that its ratings differ (Llama 2: graded preferences)."""
    member: int = Field(0, ge=0)
    """Another number gives another head and another order of the same rankings: members of an ensemble are stages that differ in it."""


class Server(BaseModel):
    """A vLLM server that samples in the place of this process; docs/scale.md says how it is started."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    address: str
    """Such as http://127.0.0.1:8000, without /v1."""
    model: str
    """The name it serves the model by."""
    weights: str
    """A folder that this process and the server both see: the policy is handed over in it."""
    key_variable: str = ""
    """The environment variable that holds the server's key, if it wants one."""
    tries: int = Field(6, ge=1)
    """Attempts at each request; between them the pause doubles."""
    pause: float = Field(1.0, ge=0)
    """Seconds before the second attempt."""
    timeout: float = Field(600.0, gt=0)
    """Seconds to wait for a reply."""
    workers: int = Field(32, ge=1)
    """Prompts that are asked at a time."""


APART = "precision bf16-weights would set the policy apart from its reference, whose weights are float32; choose bf16"


class Practice(Looped):
    """What the stages have in common in which a policy learns from its own responses."""

    unlearned: ClassVar[frozenset[str]] = Looped.unlearned | {"engine"}
    engine: Server | None = None
    """A vLLM server that samples; null samples here."""
    model: Input = "sft"
    """The policy to start from, and the reference."""
    prompts: Input = "world"
    """A stage with prompts."""
    safety: Input | None = None
    """A second reward model, of safety, combined with the one that is learned from as in Llama 2: its score counts on prompts marked `"safety": true` and
    for responses that it finds unsafe, the first model's elsewhere; scores are then whitened over a rollout. null for none."""
    safety_threshold: float = Field(0.15, ge=0, le=1)
    """The probability of being safe, by the safety model, below which a response counts as unsafe."""
    gold: Input | None = None
    """A reward model that the policy does not learn from: the judge of the watch where the prompts' truth is not known."""
    optimization: Optimization = Optimization(epsilon=1e-5)
    """The optimizer and its schedule; PPO wants a larger epsilon (Huang et al. 2024)."""
    iterations: int = Field(10, ge=1)
    """Rollouts."""
    episodes: int = Field(128, ge=1)
    """Prompts in a rollout."""
    epochs: int = Field(4, ge=1)
    """Passes over each rollout."""
    minibatches: int = Field(2, ge=1)
    """Updates in each pass."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature; log-probabilities everywhere are those at this temperature."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response, in tokens."""
    clip: float = Field(0.2, gt=0)
    """How far a token's probability ratio, and a value, may move."""
    kl_budget: float | None = Field(None, gt=0)
    """End when a rollout's KL to the reference, in nats a response, is beyond it."""
    unfinished_score: float = -1.0
    """The score of a response that never ends."""
    watch_every: int = Field(0, ge=0)
    """Rollouts between two looks of the over-optimisation watch; 0 for none."""
    watch_prompts: int = Field(64, ge=2)
    """Prompts kept out of training for the watch."""
    watch_patience: int = Field(2, ge=1)
    """Looks in a row that must find the policy worse than the best one before the practice ends."""
    adapter: AdapterSettings | None = None
    """Train adapters; the reference (and, in PPO, the reward model) is then the same weights with them off. null trains all weights. A reward model that is itself
    an adapter on `model` shares those weights too."""

    @property
    def shared(self) -> tuple[int, str]:
        """The prompts of an update."""
        return self.episodes // self.minibatches, "prompts (`episodes` over `minibatches`); raise `episodes`, lower `minibatches`"

    @model_validator(mode="after")
    def _enough_episodes(self) -> Practice:
        if self.minibatches > self.episodes:
            raise ValueError(f"minibatches ({self.minibatches}) are more than episodes ({self.episodes})")
        if self.precision == "bf16-weights":
            raise ValueError(APART)
        return self


class Ppo(Practice):
    """Reinforcement learning from the reward model, with a KL penalty to the model it starts from."""

    kind: ClassVar[str] = "ppo"
    reward: Input = "reward"
    """The reward model; the value model starts from it too."""
    kl_coefficient: float = 0.05
    """Weight of the per-token KL penalty (InstructGPT: 0.02)."""
    kl_target: float | None = None
    """When set, the KL coefficient adapts so that the KL of a response approaches this many nats."""
    kl_horizon: int = 10000
    """Episodes over which the adaptive coefficient moves."""
    value_coefficient: float = 0.1
    """Weight of the value loss."""
    whiten_rewards: bool = False
    """Scale rewards to deviation 1 over a rollout, their mean left where it is."""
    gamma: float = 1.0
    """Discount."""
    lam: float = 0.95
    """GAE's lambda."""
    pretraining: Input | None = None
    """A tokenised corpus for PPO-ptx: every update also goes on with pretraining on it (Ouyang et al. 2022, eq. 2)."""
    pretraining_coefficient: float = Field(1.0, ge=0)
    """Weight of that loss, a mean over tokens as the policy's is (InstructGPT: 27.8, in its own normalisation)."""
    pretraining_rows: int = Field(4, ge=1)
    """Packed rows of documents in an update."""


class Grpo(Practice):
    """Reinforcement learning from rewards that can be checked, without a value model: GRPO, or RLOO."""

    kind: ClassVar[str] = "grpo"
    reward: Input | None = None
    """A reward model to learn from, instead of a checker."""
    checker: str = "world"
    """What says how good a response is: `world` (is it right, by the world's truth), `rubric` (the rubric's points), `number` (does its
    last number equal that of the row's `answer`), `exact` (is it the row's `answer`), or FILE.py:FUNCTION of your own."""
    checker_seconds: float = Field(10.0, gt=0)
    """The time that a function of your own may take for a rollout's responses to one prompt."""
    samples: int = Field(8, ge=2)
    """Responses to each prompt, which are compared with one another."""
    episodes: int = Field(32, ge=1)
    """Prompts in a rollout."""
    epochs: int = Field(1, ge=1)
    """Passes over each rollout."""
    estimator: Literal["grpo", "rloo"] = "grpo"
    """grpo: rewards minus the group's mean, over its deviation; rloo: minus the mean of the others."""
    scaled: bool = True
    """grpo: divide by the group's deviation; false keeps hard and easy prompts at their own weight (Liu et al. 2025)."""
    clip_high: float | None = Field(None, gt=0)
    """How far a ratio may rise, where it differs from `clip` (Yu et al. 2025: 0.28)."""
    kl_coefficient: float = Field(0.04, ge=0)
    """Weight of the KL penalty in the loss."""
    length: int = Field(512, ge=2)
    """Tokens in one packed row: a prompt and all its responses must fit."""

    @model_validator(mode="after")
    def _safety_stands_beside_a_reward_model(self) -> Grpo:
        if self.safety and not self.reward:
            raise ValueError("a safety model is combined with a reward model, not with a checker; name it as `reward`")
        return self


class Dpo(Looped):
    """Direct preference optimisation from the same rankings."""

    kind: ClassVar[str] = "dpo"
    model: Input = "sft"
    """The model to start from, and the reference."""
    preferences: Input = "preferences"
    """A stage with rankings."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the rankings."""
    beta: float = Field(0.1, gt=0)
    """Strength of the implied KL penalty."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """sigmoid: DPO's own; ipo: a squared distance that does not push certain preferences without end (Azar et al. 2023)."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """The probability that a preference is labelled the wrong way round; for sigmoid."""
    length_normalised: bool = False
    """Take the mean log-probability of a response's tokens instead of their sum."""
    adapter: AdapterSettings | None = None
    """Train an adapter; the reference is then the same weights with it off. null trains all weights."""

    @model_validator(mode="after")
    def _smoothing_is_for_sigmoid(self) -> Dpo:
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError("label_smoothing is for the loss `sigmoid`; ipo has none")
        return self


class Kto(Looped):
    """Learn from single responses that were liked or not (Kahneman-Tversky optimisation)."""

    kind: ClassVar[str] = "kto"
    model: Input = "sft"
    """The model to start from, and the reference."""
    feedback: Input = "preferences"
    """Thumbs: a stage or a JSONL file of prompt, completion and label; or a stage with rankings, of which the upper half of each
    is liked and the lower half not."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the responses."""
    beta: float = Field(0.1, gt=0)
    """Strength of the implied KL penalty."""
    desirable_weight: float | None = Field(None, gt=0)
    """Weight of what was liked; null makes up for an imbalance of numbers."""
    undesirable_weight: float | None = Field(None, gt=0)
    """Weight of what was not liked; null makes up for an imbalance of numbers."""
    adapter: AdapterSettings | None = None
    """Train an adapter; the reference is then the same weights with it off. null trains all weights."""


class Select(Stage):
    """Rejection sampling: sample several responses to each prompt and keep what a reward model likes best."""

    kind: ClassVar[str] = "select"
    model: Input = "sft"
    """The model that responds."""
    reward: Input = "reward"
    """The reward model that picks."""
    prompts: Input = "world"
    """A stage with prompts."""
    samples: int = Field(8, ge=2)
    """Responses to each prompt."""
    count: int = Field(500, ge=1)
    """Prompts."""
    skip: int = Field(0, ge=0)
    """Prompts to pass over first, such as those of earlier rounds; counting begins anew at the end of the prompts."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response, in tokens."""
    length: int = Field(512, ge=2)
    """Tokens in one packed row of the reward model."""
    rows: int = Field(16, ge=1)
    """Packed rows that the reward model judges at once."""


class Speaking(Stage):
    """What the stages have in common in which a model, or an endpoint, judges or revises by written principles."""

    model: Input = "sft"
    """The model that responds."""
    judge: Input | None = None
    """The model that judges; null is the one that responds: self-rewarding (Yuan et al. 2024)."""
    endpoint: Endpoint | None = None
    """The judge behind an address, instead."""
    constitution: list[str] = [
        "Prefer the answer that is right.", "Prefer the answer that helps the person with what they asked.",
        "Prefer the answer that is harmless, honest and polite.", "Prefer the answer that is as short as it can be."]
    """The principles to judge by (Bai et al. 2022b)."""
    prompts: Input = "world"
    """A stage with prompts."""
    count: int = Field(300, ge=1)
    """Prompts."""
    skip: int = Field(0, ge=0)
    """Prompts to pass over first, such as those of earlier rounds."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the responses."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response, in tokens."""

    @model_validator(mode="after")
    def _one_judge(self) -> Speaking:
        if self.judge and self.endpoint:
            raise ValueError("both `judge` and `endpoint` are given; name one of them")
        return self


class AiFeedback(Speaking):
    """AI feedback: a model with a written constitution ranks responses, each pair seen in both orders."""

    kind: ClassVar[str] = "ai_feedback"
    responses: int = Field(4, ge=2)
    """Responses to each prompt."""
    margin: float = Field(0.05, ge=0)
    """Responses whose shares of won comparisons are closer than this are tied."""
    heldout: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts kept for evaluation."""


class Revise(Speaking):
    """Constitutional AI's first half: answer, criticise the answer by a principle, and write it anew."""

    kind: ClassVar[str] = "revise"


class Endpoint(BaseModel):
    """A model behind an OpenAI-compatible address."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    address: str
    """Such as http://127.0.0.1:8000/v1."""
    model: str
    """The name it knows the model by."""
    key_variable: str = ""
    """The environment variable that holds the key; the key itself belongs in no recipe."""
    tries: int = Field(6, ge=1)
    """Attempts at each question; between them the pause doubles."""
    pause: float = Field(1.0, ge=0)
    """Seconds before the second attempt."""
    timeout: float = Field(60.0, gt=0)
    """Seconds to wait for an answer."""
    workers: int = Field(8, ge=1)
    """Questions that are asked at a time."""

    @model_validator(mode="after")
    def _an_address(self) -> Endpoint:
        if not self.address.startswith(("http://", "https://")):
            raise ValueError(f"{self.address!r} is no http(s) address")
        return self


class SelfInstruct(Stage):
    """Have a model write new demonstrations from a few seed tasks (Self-Instruct)."""

    kind: ClassVar[str] = "selfinstruct"
    seeds: Input
    """Seed tasks: JSONL with `instruction` in each row, or demonstrations."""
    model: Input | None = None
    """The chat model that writes; null for an `endpoint`."""
    endpoint: Endpoint | None = None
    """A model behind an address."""
    count: int = Field(100, ge=1)
    """Demonstrations to write."""
    shots: int = Field(8, ge=2)
    """Tasks shown to the model; a quarter of them are its own."""
    likeness: float = Field(0.7, gt=0, le=1)
    """ROUGE-L with any earlier task from which an instruction is too like it."""
    fewest_words: int = Field(3, ge=1)
    """Shortest instruction, in words (in characters, for Chinese)."""
    most_words: int = Field(150, ge=1)
    """Longest instruction."""
    banned: list[str] = ["image", "images", "picture", "pictures", "graph", "graphs", "file", "files", "map", "maps", "draw", "plot", "video", "audio", "图片", "视频"]
    """Words that no instruction may have: what a model of text cannot do."""
    temperature: float = Field(0.7, ge=0)
    """Sampling temperature."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer, in tokens."""

    @model_validator(mode="after")
    def _one_model(self) -> SelfInstruct:
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("name a `model` or an `endpoint`, one of them")
        return self


class Evaluate(Stage):
    """Measure the models on held-out prompts."""

    kind: ClassVar[str] = "evaluate"
    models: dict[str, Input] = {}
    """The chat models to measure, each under a name of your own."""
    base: Input | None = None
    """A pretrained model, measured with a few demonstrations in its prompt."""
    baseline: str = "sft"
    """The model, by that name, that others are compared with."""
    prompts: Input = "world"
    """A stage with evaluation prompts."""
    demonstrations: Input = "world"
    """Where the base model's few examples come from."""
    reward: Input | None = None
    """The reward model that judges where no rubric is known."""
    checkers: dict[str, str] = {}
    """What else is counted on greedy answers: checkers as grpo has them, each under a name of your own, as `{right: number}`. Where there is no rubric and no
    `reward`, the first of them judges."""
    checker_seconds: float = Field(10.0, gt=0)
    """The time that a function of your own may take for one answer."""
    best_of: dict[str, list[int]] = {}
    """Best-of-N beside the models themselves: for a model's name the numbers N. `{sft: [4, 16]}` adds sft-best-of-4 and sft-best-of-16, the
    response that `picker` scores highest of so many; both are of the same samples."""
    picker: Input | None = None
    """The reward model that picks for `best_of`."""
    tokens: Input | None = None
    """A tokenised corpus, on whose validation documents the models' bits per byte are measured: what was kept of pretraining."""
    limit: int | None = Field(None, ge=1)
    """Most prompts; null takes all."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the answers that are compared; right answers are counted on greedy ones."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer, in tokens."""
    shots: int = Field(4, ge=0)
    """Examples in the base model's prompt."""
    tasks: list[Input] = []
    """Further tasks, as YAML files: see docs/evaluation.md. Every model and the base model is examined on them."""
    task_limit: int | None = Field(None, ge=1)
    """Most questions of each of a task's groups; null for what the task says."""

    @model_validator(mode="after")
    def _someone_picks(self) -> Evaluate:
        if self.best_of and not self.picker:
            raise ValueError("best_of needs a reward model that picks; name it as `picker`")
        for name, numbers in self.best_of.items():
            if name not in self.models:
                raise ValueError(f"best_of: {name!r} is none of the models{nearest(name, self.models)}")
            if not numbers or min(numbers) < 2:
                raise ValueError(f"best_of.{name}: the best of {numbers} is nothing new; give numbers from 2")
        return self

    def references(self) -> Iterator[tuple[str, str]]:
        """The inputs, and what the tasks' files name: a change in a question is a change of the examination."""
        from trivium.evaluation.tasks import load_task, place_of

        yield from super().references()
        for number, name in enumerate(self.tasks):
            if Path(name).is_file():
                for place, file in enumerate(load_task(Path(name)).files()):
                    yield f"tasks.{number}.data.{place}", str(place_of(Path(name), file))


class Labels(Stage):
    """Read labelled texts, and keep some of them for the examination."""

    kind: ClassVar[str] = "labels"
    tables: list[Input]
    """CSV files with a head, zip archives of them, or JSON lines."""
    text: str = "text"
    """The column of the text."""
    label: str = "label"
    """The column of the label."""
    second: str | None = None
    """The column of a second text, where labels say how two texts go together (paraphrase or not, entailment); null for none."""
    labels: list[str] = []
    """The labels there are; rows with another one are rejected. Empty takes all that are found."""
    most: int = Field(100, ge=2)
    """Most different labels."""
    heldout: float = Field(0.1, gt=0, lt=1)
    """Share of the texts, chosen by a hash, that is kept for the examination."""


class Encode(FromText):
    """Train an encoder from random weights to guess hidden tokens."""

    kind: ClassVar[str] = "encode"
    model: EncoderConfig = EncoderConfig()
    """The model's shape; vocab_size is taken from the tokenizer, and one for the mask."""
    mask: float = Field(0.3, gt=0, lt=1)
    """Share of the tokens that are hidden (ModernBERT: 0.3)."""


class Classify(Looped):
    """Fine-tune an encoder on labelled texts."""

    kind: ClassVar[str] = "classify"
    alone: ClassVar[bool] = True
    model: Input = "encode"
    """The encoder to start from."""
    labels: Input = "labels"
    """The stage with the labelled texts."""
    epochs: float = Field(3.0, gt=0)
    """Passes over them."""
    baseline: bool = True
    """Compare with TF-IDF and logistic regression; needs scikit-learn."""
    adapter: AdapterSettings | None = None
    """Train a LoRA adapter, and the head, beside the frozen encoder; it is folded into the folder's weights. null trains all weights."""

    @model_validator(mode="after")
    def _folds_in(self) -> Classify:
        if self.adapter and self.adapter.kind != "lora":
            raise ValueError(f"a {self.adapter.kind} adapter cannot be folded into an encoder's weights; choose lora")
        return self


class Pairs(Stage):
    """Pairs of a source and its target: number words and digits, or files of your own."""

    kind: ClassVar[str] = "pairs"
    numbers: int = Field(0, ge=0)
    """Numbers below a million, chosen by the seed, in English words and in digits."""
    files: list[Input] = []
    """JSON lines with the two fields; or folders and tar.gz archives in which source.txt and target.txt lie beside each other, line by line."""
    source: str = "source"
    """The rows' field with what is read."""
    target: str = "target"
    """The rows' field with what is to be written."""
    heldout: float = Field(0.05, gt=0, lt=1)
    """Share of the pairs, chosen by a hash of the source, that is kept for the examination."""
    heldout_most: int = Field(500, ge=1)
    """Most pairs of the examination; the rest of the share is used for nothing."""

    @model_validator(mode="after")
    def _something_to_read(self) -> Pairs:
        if not self.numbers and not self.files:
            raise ValueError("give `numbers`, or `files` of pairs")
        return self


class Spans(FromText):
    """Train an encoder-decoder from random weights to write the spans that were cut out of texts."""

    kind: ClassVar[str] = "spans"
    model: EncoderDecoderConfig = EncoderDecoderConfig()
    """The model's shape; vocab_size is taken from the tokenizer, with one more for each sentinel."""
    share: float = Field(0.15, gt=0, le=0.4)
    """Share of a text's tokens that is cut out (T5: 0.15)."""
    span: float = Field(3.0, ge=1)
    """Mean length of a span, in tokens (T5: 3)."""
    sentinels: int = Field(64, ge=1)
    """Tokens that name spans, and so the most spans of a text (T5: 100)."""


class Translate(Looped):
    """Fine-tune an encoder-decoder on pairs, and score what it writes for held-out sources."""

    kind: ClassVar[str] = "translate"
    model: Input = "spans"
    """The encoder-decoder to start from."""
    pairs: Input = "pairs"
    """A stage or a folder with `train.jsonl` and `heldout.jsonl`: rows of `source` and `target`."""
    epochs: float = Field(3.0, gt=0)
    """Passes over the pairs."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest target that is written, in tokens."""
    adapter: AdapterSettings | None = None
    """Train an adapter (lora or bottleneck) beside the frozen model; null trains all weights."""

    @model_validator(mode="after")
    def _no_prefix(self) -> Translate:
        if self.adapter and self.adapter.kind == "prefix":
            raise ValueError("an encoder-decoder has no place for a prefix; choose lora or bottleneck")
        return self


class Pictures(Stage):
    """Handwritten digits and drawn shapes, with questions about them."""

    kind: ClassVar[str] = "pictures"
    mnist: Input | None = None
    """A folder with MNIST's four files in IDX form, gzipped or not; null takes the 1,797 small digits of scikit-learn."""
    digits: int = Field(12_000, ge=1)
    """Digits to learn from, chosen by the seed; at most as many as there are."""
    shapes: int = Field(12_000, ge=1)
    """Pictures of shapes to learn from."""
    most: int = Field(5, ge=1, le=9)
    """Most shapes of the kind that is counted."""
    inverted: float = Field(0.5, ge=0, le=1)
    """Share of the pictures whose ink is dark on white; MNIST's is white on black."""
    heldout: int = Field(500, ge=1)
    """Digits, and pictures of shapes, that are kept for the examination."""


class Vision(Looped):
    """Train an encoder of pictures from random weights to paint patches that it does not see."""

    kind: ClassVar[str] = "vision"
    alone: ClassVar[bool] = True
    pictures: Input = "pictures"
    """A stage or a folder with `train.jsonl` and `heldout.jsonl`, whose messages hold pictures."""
    model: VisionConfig = VisionConfig()
    """The encoder's shape, and that of a picture."""
    mask: float = Field(0.6, gt=0, lt=1)
    """Share of the patches that are hidden (SimMIM: 0.6)."""
    epochs: float = Field(1.0, ge=0)
    """Passes over the pictures; 0 leaves the encoder random."""


class See(Looped):
    """Teach a chat model to answer questions about pictures."""

    kind: ClassVar[str] = "see"
    alone: ClassVar[bool] = True
    model: Input = "sft"
    """The chat model to start from, or one that already sees."""
    vision: Input | None = None
    """The stage with the encoder of pictures, for a model that does not see yet."""
    pictures: Input = "pictures"
    """A stage or a folder with `captions.jsonl`, `train.jsonl` and `heldout.jsonl`: chat messages whose contents hold pictures, as data URLs or as
    names of files in the folder."""
    rows_from: Literal["captions", "train"] = "train"
    """Learn from what pictures show (LLaVA's first step), or from questions about them (its second)."""
    train: list[Literal["projector", "decoder", "vision"]] = ["projector", "decoder"]
    """What learns; the rest stays as it is. LLaVA: the projector alone, then the projector and the decoder."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the rows."""
    examine: bool = True
    """Count right answers about held-out pictures, and again with the pictures blacked out."""


class Report(Stage):
    """Write the report page and metrics.json."""

    kind: ClassVar[str] = "report"
    stages: list[Input] = []
    """The stages to report on."""


STAGES: dict[str, type[Stage]] = {stage.kind: stage for stage in (
    World, Imports, SelfInstruct, Filter, Corpus, Tokenizer, Tokens, Pretrain, Sft, Preferences, Reward, Ppo, Grpo, Dpo, Kto, Select, AiFeedback, Revise, Labels, Encode,
    Classify, Pairs, Spans, Translate, Pictures, Vision, See, Evaluate, Report)}
"""Every stage by its kind."""
