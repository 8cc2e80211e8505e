"""The server under 64 clients of every kind for a while, hang-ups among them: is its memory flat, are its files closed?

    python benchmarks/serve_soak.py [--minutes 10] [--clients 64] [--model FOLDER]

Starts `trivium serve` on a free port with a language model and an encoder. Clients are threads of this process: chats,
streams, texts, thumbs, embeddings, half requests and hang-ups. Prints the server's memory and open files every 30
seconds and what it answered, at the end once more when all clients have gone.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
import httpx
import serve


def small_encoder(place: Path, tokenizer: Path) -> Path:
    """An encoder of random weights with a model's tokenizer."""
    from trivium.model.config import EncoderConfig
    from trivium.model.encoder import MaskedModel, save_encoder
    from trivium.tokenizer.chat import ChatTokenizer
    words = ChatTokenizer.load(tokenizer)
    model = MaskedModel(EncoderConfig(vocab_size=words.vocab_size, hidden_size=64, intermediate_size=96, num_layers=2,
                                      num_heads=4, num_kv_heads=4, head_dim=16, max_positions=512)).initialise(0)
    place.mkdir()
    save_encoder(model, place, {"pad": words.pad_id, "document": words.document_id})
    words.save(place)
    return place


def hang_up(address: str, chance: random.Random) -> str:
    """Send a request, or half of one, and go away."""
    host, _, port = address.removeprefix("http://").partition(":")
    body = json.dumps(serve.body(chance.randrange(1000), 400, stream=chance.random() < 0.5)).encode()
    request = (b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
               b"content-length: %d\r\n\r\n" % len(body)) + body
    with socket.create_connection((host, int(port)), timeout=30) as gone:
        gone.sendall(request[:chance.choice([20, 100, len(request)])])
        time.sleep(chance.choice([0, 0, 0.05]))
    return "gone"


def one(http: httpx.Client, address: str, kind: str, chance: random.Random) -> str:
    """One request of a kind; its status in words."""
    seed = chance.randrange(10**6)
    if kind == "hang-up":
        return hang_up(address, chance)
    if kind == "stream":
        serve.ask(http, seed * 2)
        return "200"
    if kind == "embeddings":
        return str(http.post("/v1/embeddings", json={"model": "encoder", "input": ["a word", "two"]}).status_code)
    if kind == "text":
        return str(http.post("/v1/completions", json={"model": "model", "prompt": "Once", "max_tokens": 16,
                                                      "seed": seed}).status_code)
    answer = http.post("/v1/chat/completions", json=serve.body(seed, 16, user="soak"))
    if kind != "thumb" or answer.status_code != 200:
        return str(answer.status_code)
    choice = answer.json()["choices"][0]
    return str(http.post("/feedback/thumb", json={
        "messages": serve.body(seed)["messages"], "completion": choice["message"]["content"], "model": "model",
        "who": "soak", "signature": choice.get("signature", "none"), "label": True}).status_code)


def main() -> None:
    """Start, soak, stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", type=Path, help="a model's folder; a 6.8M Llama of random weights when left out")
    options = parser.parse_args()
    kinds, counts, lock = ["chat", "stream", "text", "thumb", "embeddings", "hang-up"], collections.Counter(), \
        threading.Lock()
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or serve.small_model(Path(scratch) / "model")
        encoder = small_encoder(Path(scratch) / "encoder", model)
        process, address = serve.start(model, f"encoder={encoder}", "--feedback", f"{scratch}/feedback")
        end = time.time() + options.minutes * 60

        def client(number: int) -> None:
            chance, kind = random.Random(number), kinds[number % len(kinds)]
            with httpx.Client(base_url=address, timeout=120) as http:
                while time.time() < end:
                    try:
                        said = one(http, address, kind, chance)
                    except httpx.HTTPStatusError as error:
                        said = str(error.response.status_code)
                    except (httpx.TransportError, OSError) as error:
                        said = type(error).__name__
                    with lock:
                        counts[f"{kind} {said}"] += 1

        def look() -> dict[str, Any]:
            found = {"seconds": round(time.time() - begun), "memory_mib": round(serve.resident(process.pid), 1),
                     "open_files": len(list(Path(f"/proc/{process.pid}/fd").iterdir()))}
            print(json.dumps(found), flush=True)
            return found

        begun, seen = time.time(), []
        try:
            threads = [threading.Thread(target=client, args=(number,)) for number in range(options.clients)]
            for thread in threads:
                thread.start()
            while time.time() < end:
                seen.append(look())
                time.sleep(min(30.0, max(0.1, end - time.time())))
            for thread in threads:
                thread.join()
            time.sleep(3)
            seen.append(look())
            print(json.dumps({"benchmark": "serve_soak", "clients": options.clients, "seen": seen,
                              "answers": dict(sorted(counts.items())), "machine": common.machine()}))
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
