"""What a reward model's folder says so that programs which score whole chats read where training read.

``transformers`` reads the score at the last token that is not padding. So padding must be a token that cannot end an
answer, and the chat template must write nothing after the token that ends the last one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from trivium.files import read_json, read_text, write_json, write_text
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.rendering import Header

ADDED = "<|trivium_pad|>"
"""Padding where a tokenizer has nothing that could serve: transformers adds it past the tokenizer's own entries."""

ASKED = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]


def set_scoring_padding(tokenizer: ChatTokenizer, folder: Path) -> int:
    """Choose the padding of a reward model, write it into the tokenizer's files in ``folder``, and return its id for
    ``config.json``."""
    name, id = scoring_padding(tokenizer)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / file
        values = read_json(path) if path.exists() else {}
        if path.exists() or file == "tokenizer_config.json":
            kept = {key: value for key, value in values.items() if key != "pad_token"}
            write_json(path, kept | {"pad_token": name})
    return id


def scoring_padding(tokenizer: ChatTokenizer) -> tuple[str, int]:
    """The spelling and id of a token that never ends an answer, and can fill up batches: the tokenizer's own padding,
    the unknown token, one that is reserved, the one that begins texts, or a new one past the tokenizer's."""
    ends = {tokenizer.end_id, *tokenizer.encode_chat(ASKED)[0]}
    if tokenizer.pad_id not in ends:
        return tokenizer.spelling(tokenizer.pad_id), tokenizer.pad_id
    described = json.loads(tokenizer.data)
    special = {str(token["content"]): int(token["id"]) for token in described.get("added_tokens") or []
               if token.get("special")}
    unknown = getattr(tokenizer, "special", {}).get("unk") or described.get("model", {}).get("unk_token")
    reserved = [name for name in special if re.search(r"pad|reserved|unused|dummy", name, re.IGNORECASE)]
    for name in (unknown, *sorted(reserved, key=lambda name: "pad" not in name.lower())):
        if name in special and special[name] not in ends:
            return name, special[name]
    begins = getattr(tokenizer, "special", {}).get("bos")
    if begins in special and special[begins] != tokenizer.end_id:
        return begins, special[begins]
    return ADDED, tokenizer.vocab_size


def end_where_scores_are_read(tokenizer: ChatTokenizer, folder: Path) -> None:
    """Leave out what the saved chat template writes after the token that ends the last answer, such as a line's end:
    training read the score at that token."""
    text, end = tokenizer.render(ASKED), tokenizer.spelling(tokenizer.end_id)
    after = text[text.rfind(end) + len(end):]
    path = folder / "chat_template.jinja"
    if not after or end not in text:
        return
    template = read_text(path) if path.exists() else tokenizer.template
    told = json.dumps(end + after, ensure_ascii=False)
    shown = f"whole[:-{len(after)}] if whole.endswith({told}) and not add_generation_prompt else whole"
    header, bare = Header.split(template)
    wrapped = f"{{% set whole %}}{Header(header.system).before(bare)}{{% endset %}}{{{{ {shown} }}}}"
    write_text(path, Header(day=header.day).before(wrapped))
