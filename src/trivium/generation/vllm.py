"""A vLLM server as the sampling engine: weights go there as a safetensors file, tokens with log-probabilities come
back.

The trainer and the server see one folder (a disk of the machine, or one that is shared). :meth:`VllmEngine.send` writes
the policy there and has every worker of the server read it, by the method that :class:`WeightsFromDisk` adds to a
worker. So the server is started like this::

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs \\
        --worker-extension-cls trivium.generation.vllm.WeightsFromDisk

``VLLM_SERVER_DEV_MODE`` opens ``/collective_rpc`` and ``/reset_prefix_cache``, to anybody who reaches the port: keep it
inside. With ``processed_logprobs`` the log-probabilities are those at the sampling temperature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trivium import randomness
from trivium.errors import TriviumError
from trivium.files import written_aside
from trivium.generation.endpoint import Endpoint
from trivium.generation.engine import Completion
from trivium.generation.sampling import Sampling
from trivium.model.transformer import LanguageModel


class WeightsFromDisk:
    """What a worker of the server can do besides (vLLM's ``worker_extension_cls``)."""

    model_runner: Any

    def load_weights_from_disk(self, path: str) -> int:
        """Load a safetensors file, whose tensors have Hugging Face's names, into the model that runs; how many there
        were."""
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())

            def tensors() -> Iterator[tuple[str, Tensor]]:
                for name in names:
                    yield name, file.get_tensor(name)

            self.model_runner.model.load_weights(tensors())
        return len(names)


class VllmEngine:
    """Samples at ``address`` (http://HOST:PORT, without /v1) from the model that is served as ``model``; ``weights`` is
    the folder that both see."""

    def __init__(self, address: str, model: str, weights: Path, key_variable: str = "", tries: int = 6,
                 pause: float = 1.0, timeout: float = 600.0, workers: int = 32) -> None:
        self.endpoint = Endpoint(address, model, key_variable, tries, timeout, pause, workers)
        self.weights, self.sent = weights, 0

    def send(self, model: LanguageModel) -> None:
        """Have the server sample from these weights. Raises :class:`TriviumError` when it does not say that it has
        loaded them all."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
                   if not (model.config.tie_embeddings and name == "lm_head.weight")}
        self.weights.mkdir(parents=True, exist_ok=True)
        place = (self.weights / f"policy-{self.sent}.safetensors").absolute()
        with written_aside(place) as aside:
            save_file(tensors, aside, {"format": "pt"})

        def loaded(reply: Any) -> None:
            if any(int(number) != len(tensors) for number in reply["results"]) or not reply["results"]:
                raise TriviumError(
                    f"endpoint {self.endpoint.address}: of {len(tensors)} tensors its workers loaded {reply['results']}"
                )

        self.endpoint.post("/collective_rpc", {"method": "load_weights_from_disk", "args": [str(place)]}, loaded)
        # what is kept of prompts was computed by the old weights
        self.endpoint.post("/reset_prefix_cache", None, lambda reply: None)
        for old in self.weights.glob("policy-*.safetensors"):
            if old.absolute() != place:
                old.unlink(missing_ok=True)
        self.sent += 1

    def __call__(self, model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, stop: Sequence[int],
                 samples: int, keys: Sequence[object], progress: Callable[[int, int], None]) -> list[list[Completion]]:
        """``samples`` completions of each prompt, by the weights that were sent last. Raises :class:`TriviumError` for
        an answer that lacks token ids or their log-probabilities."""
        body = {
            "model": self.endpoint.model, "n": samples, "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p, "repetition_penalty": sampling.repetition_penalty, "logprobs": 1,
            "stop_token_ids": list(stop), "ignore_eos": True, "return_token_ids": True,
            "return_tokens_as_token_ids": True, "skip_special_tokens": False
        }

        def ask(prompt: Sequence[int], key: object) -> list[Completion]:
            seed = randomness.derive(sampling.seed, key) % 2**63
            return self.endpoint.post("/v1/completions", body | {"prompt": list(prompt), "seed": seed},
                                      lambda reply: completions(reply, samples, stop))

        found: list[list[Completion]] = self.endpoint.at_once(ask, [prompts, keys], progress)
        return found


def completions(reply: Any, samples: int, stop: Sequence[int]) -> list[Completion]:
    """The completions in a reply of ``/v1/completions``. Raises :class:`TriviumError` for a reply of another kind than
    was asked for."""
    choices = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
    if len(choices) != samples:
        raise TriviumError(f"the server gave {len(choices)} completions of a prompt, not {samples}")
    made = []
    for choice in choices:
        log_probs = [float("nan") if value is None else float(value) for value in choice["logprobs"]["token_logprobs"]]
        tokens = choice.get("token_ids")
        if tokens is None:  # before vLLM 0.10.2: tokens are told as "token_id:17"
            tokens = [int(token.removeprefix("token_id:")) for token in choice["logprobs"]["tokens"]]
        if not tokens or len(tokens) != len(log_probs) or not all(map(math.isfinite, log_probs)):
            raise TriviumError(
                f"the server gave {len(tokens)} token ids with {len(log_probs)} "
                "log-probabilities, or some that are not finite"
            )
        finished = choice["finish_reason"] == "stop"
        if finished and tokens[-1] not in stop:
            raise TriviumError(
                f"a completion ended at token {tokens[-1]}, which is none of the stop tokens {list(stop)}; "
                "start the server without stop settings of its own")
        made.append(Completion(list(tokens), np.array(log_probs, np.float32), finished))
    return made
