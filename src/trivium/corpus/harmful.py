"""Pages that should not teach a model: by the words of their address, and by how thick harmful terms stand in the text.

A word list alone condemns news, history and medicine. So terms carry weights, and a document is rejected only when
their sum is high both in all and for each hundred words. What is wanted differs by place and purpose: lists of one's
own can be added, or replace ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from trivium.corpus.words import characters_a_word, plain_words
from trivium.errors import TriviumError
from trivium.files import read_text


@dataclass(frozen=True)
class HarmfulSettings:
    """The filter of harmful documents."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    enabled: bool = True
    """Reject harmful documents at all."""
    own_terms: bool = True
    """Use the built-in list of terms and address words."""
    min_weight: float = 3.0
    """The terms of a document must weigh at least this much, all together, for it to be rejected."""
    min_density: float = 2.0
    """And they must weigh at least this much for each hundred words."""
    max_harm: float = 0.9
    """Greatest probability of being harmful, by the classifier where one was trained."""


TERMS = {
    "bomb": 1.0, "bombs": 1.0, "pipe bomb": 2.0, "make a bomb": 3.0, "build a bomb": 3.0, "explosive": 1.0,
    "explosives": 1.0, "detonate": 1.0, "detonator": 1.5, "grenade": 1.0, "gunpowder": 1.0, "ammunition": 1.0,
    "weapon": 1.0, "weapons": 1.0, "firearm": 1.0, "untraceable gun": 3.0, "nerve gas": 2.0, "poison": 1.0,
    "poisons": 1.0, "poisoning": 0.5, "toxin": 0.5, "cyanide": 1.5, "ricin": 2.0, "kill": 1.0, "kill him": 1.5,
    "kill her": 1.5, "kill them": 1.5, "murder": 1.0, "strangle": 1.5, "stab": 1.0, "torture": 1.0, "massacre": 1.0,
    "behead": 2.0, "steal": 1.0, "stealing": 1.0, "shoplift": 1.5, "break into": 1.0, "pick the lock": 1.5,
    "hotwire": 1.5, "rob": 1.0, "burglary": 1.0, "kidnap": 1.5, "blackmail": 1.5, "extort": 1.5, "counterfeit": 1.0,
    "launder": 1.0, "launder money": 2.0, "forge documents": 2.0, "stolen credit": 2.0, "hack into": 1.5,
    "malware": 1.0, "ransomware": 1.5, "keylogger": 1.5, "phishing kit": 2.0, "heroin": 1.0, "cocaine": 1.0,
    "meth": 1.0, "cook meth": 3.0, "arson": 1.0, "suicide method": 3.0, "self harm": 1.0, "porn": 1.5,
    "pornographic": 1.0, "xxx": 1.0, "炸弹": 1.5, "炸药": 1.5, "爆炸物": 1.5, "毒药": 1.0, "下毒": 1.5, "武器": 1.0,
    "枪支": 1.5, "弹药": 1.0, "偷窃": 1.0, "杀死": 1.0, "谋杀": 1.0, "绑架": 1.5, "勒索": 1.5, "色情": 1.5,
}
ADDRESS_WORDS = ("porn", "porno", "xxx", "hentai", "camgirls", "escorts", "casino", "viagra", "warez")


def terms_of(settings: HarmfulSettings, term_lists: Iterable[Path], blocked_domains: Iterable[Path]) -> dict[str, Any]:
    """All terms, address words and blocked domains, as JSON that a task can be given. ``term_lists`` are files of
    further terms, one a line, with a weight after a tab where it is not 1; ``blocked_domains`` files of domains, one a
    line; '#' begins a comment."""
    terms = dict(TERMS) if settings.own_terms else {}
    for name in term_lists:
        for number, line in _list_lines(name):
            term, _, weight = line.partition("\t")
            try:
                terms[term.strip().lower()] = float(weight) if weight.strip() else 1.0
            except ValueError as error:
                raise TriviumError(f"{name}: line {number}: the weight {weight.strip()!r} is not a number") from error
    domains = sorted({line.lower().removeprefix("www.")
                      for name in blocked_domains for _, line in _list_lines(name)})
    return {"terms": terms, "address_words": list(ADDRESS_WORDS) if settings.own_terms else [], "domains": domains}


def _list_lines(path: Path) -> Iterable[tuple[int, str]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line := line.split("#")[0].strip():
            yield number, line


class AddressFilter:
    """The compiled lists of domains and of words in addresses."""

    def __init__(self, lists: dict[str, Any]) -> None:
        self.domains, self.address_words = set(lists["domains"]), set(lists["address_words"])

    def check(self, url: str) -> str | None:
        """A reason, or ``None``: by the blocked domains, subdomains included, and the words of the address."""
        try:
            host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
        except ValueError:  # no address at all
            host = ""
        labels = host.removeprefix("www.").split(".")
        for start in range(len(labels) - 1):
            if (domain := ".".join(labels[start:])) in self.domains:
                return f"blocked_domain: {domain}"
        found = self.address_words & set(re.split(r"[^a-z0-9]+", url.lower()))
        return f"address: {min(found)}" if found else None


class HarmfulFilter:
    """The compiled list of terms."""

    def __init__(self, lists: dict[str, Any], min_weight: float, min_density: float) -> None:
        self.min_weight, self.min_density = min_weight, min_density
        self.first: dict[str, list[tuple[list[str], str, float]]] = {}
        for term, weight in lists["terms"].items():
            if parts := plain_words(term):
                self.first.setdefault(parts[0], []).append((parts, term, weight))
        for same_start in self.first.values():
            same_start.sort(key=lambda entry: -len(entry[0]))  # the longest phrase counts, its parts do not count again

    def check_text(self, text: str) -> str | None:
        """By the weight of harmful terms, in all and for each hundred words."""
        words = plain_words(text)
        if self.first.keys().isdisjoint(words):
            return None
        weight, found, index = 0.0, set(), 0
        while index < len(words):
            for parts, term, value in self.first.get(words[index], ()):
                if words[index:index + len(parts)] == parts:
                    weight, index = weight + value, index + len(parts) - 1
                    found.add(term)
                    break
            index += 1
        density = 100 * weight / max(1, len(words) / characters_a_word(text))
        if found and weight >= self.min_weight and density >= self.min_density:
            return f"terms: {', '.join(sorted(found))} weigh {weight:g}, {density:.2g} in a hundred words"
        return None
