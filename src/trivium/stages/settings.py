"""The settings of every stage. A recipe is made of these; their descriptions are its reference."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trivium.corpus.settings import CorpusSettings
from trivium.model.adapters import AdapterSettings
from trivium.model.config import ModelConfig
from trivium.recipe_base import Input, Stage
from trivium.stages.phrasings import Phrasing
from trivium.training.machine import Precision
from trivium.training.optimizers import Optimization
from trivium.training.parallel import Parallel
from trivium.world.source import WorldSettings


class World(Stage):
    """Write the embedded world: raw documents, demonstrations, prompts, and the truth about them."""

    kind: ClassVar[str] = "world"
    size: WorldSettings = WorldSettings()
    """How big the world is."""


class Source(BaseModel):
    """How the rows of one source are read and how many of them are used."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

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
    """Clean raw documents: extraction, quality, duplicates, private data, decontamination."""

    kind: ClassVar[str] = "corpus"
    documents: list[Input] = ["world"]
    """Raw documents: earlier stages, folders, files or archives."""
    evaluation: Input | None = None
    """A stage whose evaluation prompts must not occur in the corpus."""
    settings: CorpusSettings = CorpusSettings()
    """The steps and their thresholds."""


class Tokenizer(Stage):
    """Train a byte-level BPE tokenizer on a corpus."""

    kind: ClassVar[str] = "tokenizer"
    corpus: Input = "corpus"
    """The clean documents."""
    vocab_size: int = Field(2048, ge=262)
    """Entries, the six special tokens included."""


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
    """auto, float32 or bf16; auto takes bf16 where the hardware multiplies it natively."""


class Looped(Training):
    """What stages have in common that are nothing but the training loop."""

    unlearned: ClassVar[frozenset[str]] = frozenset({"parallel", "track"})
    parallel: Parallel = Parallel()
    """Processes, memory and compilation."""
    track: bool = False
    """Write TensorBoard's files too, into the model's folder; needs the extra `track`."""


class Pretrain(Looped):
    """Train a decoder from random weights to predict the next token of the corpus."""

    kind: ClassVar[str] = "pretrain"
    tokens: Input = "tokens"
    """The tokenised corpus."""
    tokenizer: Input = "tokenizer"
    """The tokenizer, which becomes part of the model's folder."""
    model: ModelConfig = ModelConfig()
    """The model's shape; vocab_size is taken from the tokenizer."""
    epochs: float = Field(1.0, ge=0)
    """Passes over the corpus; 0 leaves the model random."""
    steps: int | None = Field(None, ge=0)
    """Updates, instead of epochs."""
    evaluate_every: int = Field(0, ge=0)
    """Updates between two measurements of the held-out loss, each with a sample text, in log.jsonl; 0 for none."""


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


class Ppo(Training):
    """Reinforcement learning from the reward model, with a KL penalty to the model it starts from."""

    kind: ClassVar[str] = "ppo"
    model: Input = "sft"
    """The policy to start from, and the reference."""
    reward: Input = "reward"
    """The reward model; the value model starts from it too."""
    prompts: Input = "world"
    """A stage with prompts."""
    optimization: Optimization = Optimization(epsilon=1e-5)
    """The optimizer and its schedule; PPO wants a larger epsilon (Huang et al. 2024)."""
    iterations: int = Field(10, ge=1)
    """Rollouts."""
    episodes: int = Field(128, ge=1)
    """Responses in a rollout, one a prompt."""
    epochs: int = Field(4, ge=1)
    """Passes over each rollout."""
    minibatches: int = Field(2, ge=1)
    """Updates in each pass."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature; log-probabilities everywhere are those at this temperature."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response, in tokens."""
    kl_coefficient: float = 0.05
    """Weight of the per-token KL penalty (InstructGPT: 0.02)."""
    kl_target: float | None = None
    """When set, the KL coefficient adapts so that the KL of a response approaches this many nats."""
    kl_horizon: int = 10000
    """Episodes over which the adaptive coefficient moves."""
    clip: float = Field(0.2, gt=0)
    """How far a token's probability ratio, and a value, may move."""
    value_coefficient: float = 0.1
    """Weight of the value loss."""
    gamma: float = 1.0
    """Discount."""
    lam: float = 0.95
    """GAE's lambda."""
    unfinished_score: float = -1.0
    """The score of a response that never ends."""
    adapter: AdapterSettings | None = None
    """Train adapters of policy and value model; the reference and the reward model are then the same weights with them off.
    null trains all weights."""

    @model_validator(mode="after")
    def _enough_episodes(self) -> Ppo:
        if self.minibatches > self.episodes:
            raise ValueError(f"minibatches ({self.minibatches}) are more than episodes ({self.episodes})")
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
    adapter: AdapterSettings | None = None
    """Train an adapter; the reference is then the same weights with it off. null trains all weights."""


class SelfInstruct(Stage):
    """Have a model write new demonstrations from a few seed tasks (Self-Instruct)."""

    kind: ClassVar[str] = "selfinstruct"
    unlearned: ClassVar[frozenset[str]] = frozenset({"timeout", "pause", "key_variable"})
    seeds: Input
    """Seed tasks: JSONL with `instruction` in each row, or demonstrations."""
    model: Input | None = None
    """The chat model that writes; null for an `endpoint`."""
    endpoint: str | None = None
    """A server that speaks OpenAI's protocol, such as `http://localhost:8000/v1`."""
    endpoint_model: str = "default"
    """The model's name there."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the server's key."""
    timeout: float = Field(120.0, gt=0)
    """Seconds to wait for an answer."""
    pause: float = Field(1.0, ge=0)
    """Seconds before the second try, doubled for each further one."""
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
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint {self.endpoint!r} is no http(s) address")
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
    limit: int | None = Field(None, ge=1)
    """Most prompts; null takes all."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the answers that are compared; right answers are counted on greedy ones."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer, in tokens."""
    shots: int = Field(4, ge=0)
    """Examples in the base model's prompt."""


class Report(Stage):
    """Write the report page and metrics.json."""

    kind: ClassVar[str] = "report"
    stages: list[Input] = []
    """The stages to report on."""


STAGES: dict[str, type[Stage]] = {stage.kind: stage for stage in (
    World, Imports, SelfInstruct, Corpus, Tokenizer, Tokens, Pretrain, Sft, Preferences, Reward, Ppo, Dpo, Evaluate, Report)}
"""Every stage by its kind."""
