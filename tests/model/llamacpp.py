"""llama.cpp, in a process of its own: its tokens, and what it says with the likeliest ones."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

SERVER = """
import sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = sys.argv[1], 256, 1, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


class LlamaCpp:
    """A served GGUF file."""

    def __init__(self, path):
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, str(path)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        self.address = self.process.stdout.readline().strip()
        assert self.address, self.process.stderr.read()
        return self

    def __exit__(self, *raised):
        self.process.kill()  # told to end, the library sometimes waits for its own threads for ever
        self.process.communicate()

    def ask(self, path, **body):
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def tokens(self, text, special=False):
        """Those of a text, with what stands before it where ``special``."""
        return self.ask("/tokenize", content=text, add_special=special, parse_special=False)["tokens"]

    def complete(self, prompt, count):
        """The likeliest tokens after a text, or after tokens."""
        return self.ask("/completion", prompt=prompt, n_predict=count, temperature=0, return_tokens=True,
                        cache_prompt=False)["tokens"]

    def chat(self, messages, count):
        """The likeliest answer's tokens, and how many the prompt has."""
        reply = self.ask("/v1/chat/completions", messages=messages, max_tokens=count, temperature=0, verbose=True,
                         return_tokens=True)
        return reply["__verbose"]["tokens"], reply["usage"]["prompt_tokens"]
