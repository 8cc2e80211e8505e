"""What is wrong with the raw corpus, and the truth about it.

Clean documents are wrapped in web pages, copied, half copied and sprinkled with personal data; spam, harmful pages and
leaked evaluation questions come on top. One truth row a raw document says what was done to it, so every filter can be
measured by what it should have found.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from trivium.files import Row
from trivium.randomness import python
from trivium.world.documents import Document
from trivium.world.pages import page
from trivium.world.phrases import capital
from trivium.world.town import Town

AMOUNTS = {"boilerplate": 0.13, "exact_duplicate": 0.057, "near_duplicate": 0.057, "spam": 0.045, "harmful": 0.035,
           "private": 0.046, "contaminated": 0.018}
"""How much there is of each kind of dirt, as a share of the number of clean documents."""

PROSE = ("encyclopaedia", "stories", "reviews")
"""Sources whose texts are copied with changes and sprinkled with personal data."""

HARMFUL_WORDS = ("poison", "bomb", "steal", "stab", "burglar", "blackmail", "explosive", "murder", "arson", "robbery")
"""Words that stand in every harmful page (two or more of them) and in no clean document."""


class Pile:
    """The raw documents and their truth while they grow, in the same order."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.truth: list[Row] = []

    def add(self, text: str, source: str, kinds: list[str], keep: bool = True, **more: Any) -> int:
        """Put a plain document on the pile and return its number."""
        self.rows.append({"source": source, "text": text})
        self.truth.append({"kinds": kinds, "keep": keep, "private": [], **more})
        return len(self.rows) - 1

    def wrap(self, number: int, title: str, rng: random.Random) -> None:
        """Turn a plain document into a web page."""
        text = self.rows[number].pop("text")
        self.rows[number]["html"] = page(text, title, rng)
        self.truth[number]["kinds"].append("boilerplate")
        self.truth[number]["clean"] = text


def raw_documents(town: Town, seed: int, clean: list[Document], evaluation: list[Row]) -> tuple[list[Row], list[Row]]:
    """Raw rows ``{"id", "url", "source", "text" | "html"}`` in random order, and for each, in the same order, the truth
    ``{"id", "kinds", "keep", "private", "clean"?, "duplicate_of"?}``. Of the documents of a cluster of duplicates (an
    original and those whose ``duplicate_of`` is its id) one has to survive, whichever it is: the copies' ``keep`` is
    false, the original's true."""
    rng = python(seed, "world", "dirt")
    amounts = {kind: round(share * len(clean)) for kind, share in AMOUNTS.items()}
    pile = Pile()
    for document in clean:
        pile.add(document.text, document.source, [])
    order = rng.sample(range(len(clean)), len(clean))
    prose = [i for i in order if clean[i].source in PROSE and len(clean[i].text.split()) >= 80]
    private, copied = prose[:amounts["private"]], prose[amounts["private"]:][:amounts["near_duplicate"] * 9 // 10]
    touched = {*private, *copied}
    others = [i for i in order if i not in touched]
    twins = others[:amounts["exact_duplicate"] * 9 // 10]
    wrapped = others[len(twins):][:amounts["boilerplate"]]
    for i in private:
        add_private(pile, i, town, rng)
    for number in [*wrapped, *private[::4]]:
        pile.wrap(number, capital(f"{pile.rows[number]['source']} of the town"), rng)
    for kind, originals, copy in (("exact_duplicate", twins, lambda text: text),
                                  ("near_duplicate", copied, lambda text: near_copy(text, rng))):
        for n in range(amounts[kind] if originals else 0):
            i = originals[n] if n < len(originals) else rng.choice(originals)
            pile.add(copy(clean[i].text), clean[i].source, [kind], keep=False, duplicate_of=i)
    for _ in range(amounts["spam"]):
        pile.add(rng.choice(SPAM)(rng), "web", ["spam"], keep=False)
    for _ in range(amounts["harmful"]):
        pile.add(harmful_page(town, rng), "web", ["harmful"], keep=False)
    leaked = [row for row in evaluation if row["task"] not in ("refusal", "dialogue")]
    for _ in range(amounts["contaminated"] if leaked else 0):
        pile.add(leak(rng.sample(leaked, min(len(leaked), rng.randint(5, 6))), rng), "web", ["contaminated"],
                 keep=False)
    return number_all(pile, town, rng)


def number_all(pile: Pile, town: Town, rng: random.Random) -> tuple[list[Row], list[Row]]:
    """Shuffle the pile and give every document its id and address."""
    order = rng.sample(range(len(pile.rows)), len(pile.rows))
    ids = {old: f"doc-{new:06d}" for new, old in enumerate(order)}
    rows, truth = [], []
    for old in order:
        place = rng.choice(town.of("place")).name.lower()
        rows.append({"id": ids[old], "url": f"https://www.{place}.example/{pile.rows[old]['source']}/{ids[old][4:]}",
                     **pile.rows[old]})
        known = pile.truth[old]
        truth.append({"id": ids[old], **known,
                      **({"duplicate_of": ids[known["duplicate_of"]]} if "duplicate_of" in known else {})})
    return rows, truth


ASIDES = ("So they say.", "That is true.", "Believe it.", "Yes, really.", "No wonder.", "That is that.")
BYLINES = ("Taken from another page.", "Seen in the town paper.", "This was sent in by a reader.",
           "A copy for the school.")


def near_copy(text: str, rng: random.Random) -> str:
    """The text with an aside between two sentences about every seventy words, and sometimes a first line of its own.
    All facts stay as they are; the Jaccard similarity of word 5-grams stays above 0.8 for most."""
    sentences = re.split(r"(?<=[.!?])( |\n+)", text)
    places = range(0, len(sentences) - 2, 2)
    for at in rng.sample(places, min(len(places), max(1, len(text.split()) // 70))):
        sentences[at] += " " + rng.choice(ASIDES)
    copy = "".join(sentences)
    return f"{rng.choice(BYLINES)} {copy}" if rng.random() < 0.4 else copy


PRIVATE_FORMS = {
    "email": ("Write to {who} at {x} if you want to know more.", "Questions go to {x}, please."),
    "phone": ("You can call {who} at {x} in the evening.", "The number to call is {x}."),
    "ip": ("This was written from a computer with the address {x}.", "The last visitor came from {x} on the net."),
    "card": ("{who} paid with the card {x} last week.", "The card number in the book is {x}."),
    "iban": ("Please send the money to the account {x} of {who}.", "The account is {x}, as ever."),
}


def add_private(pile: Pile, number: int, town: Town, rng: random.Random) -> None:
    """Put one to three sentences with personal data at the ends of paragraphs."""
    paragraphs = pile.rows[number]["text"].split("\n\n")
    found = []
    for kind in rng.sample(list(PRIVATE_FORMS), rng.randint(1, 3)):
        who = rng.choice(town.of("person")).name
        secret = PRIVATE[kind](who, town, rng)
        at = rng.randrange(len(paragraphs))
        paragraphs[at] += " " + rng.choice(PRIVATE_FORMS[kind]).format(who=who, x=secret)
        found.append({"kind": kind, "text": secret})
    pile.rows[number]["text"] = "\n\n".join(paragraphs)
    pile.truth[number]["kinds"].append("private")
    pile.truth[number]["private"] = found


def email(who: str, town: Town, rng: random.Random) -> str:
    """A mailbox in a domain reserved for examples (RFC 2606)."""
    user = rng.choice((who, f"{who}.{rng.choice(town.of('place')).name}", f"{who}{rng.randint(10, 99)}",
                       f"the_{who}")).lower()
    return f"{user}@{rng.choice(('example.org', 'example.com', 'mail.example.net'))}"


def phone(who: str, town: Town, rng: random.Random) -> str:
    """A number reserved for fiction by the American and the British regulator."""
    return rng.choice((f"+1 202-555-01{rng.randint(0, 99):02d}", f"(415) 555-01{rng.randint(0, 99):02d}",
                       f"+44 20 7946 0{rng.randint(0, 999):03d}", f"+44 1632 960{rng.randint(0, 999):03d}"))


def ip(who: str, town: Town, rng: random.Random) -> str:
    """A public IPv4 address from large blocks of the American army, which are not routed on the open net: unlike the
    blocks reserved for documentation, filters of public addresses must find them."""
    return ".".join(map(str, (rng.choice((11, 26, 30, 33)), *(rng.randint(1, 254) for _ in range(3)))))


def card(who: str, town: Town, rng: random.Random) -> str:
    """Sixteen digits with a right check digit (Luhn) that begin like the numbers that payment systems use in tests."""
    digits = rng.choice(("424242", "411111", "555555")) + "".join(str(rng.randrange(10)) for _ in range(9))
    digits += str(-luhn_sum(digits + "0") % 10)
    return rng.choice(("", " ", "-")).join(digits[i:i + 4] for i in range(0, 16, 4))


def luhn_sum(digits: str) -> int:
    """The sum that is a multiple of ten for a valid number: every second digit from the right counts double."""
    return sum(int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(digits)))


def iban(who: str, town: Town, rng: random.Random) -> str:
    """An account number of a bank that does not exist, with right check digits (ISO 13616)."""
    country, account = rng.choice((("GB", "TOWN" + "".join(str(rng.randrange(10)) for _ in range(14))),
                                   ("NL", "TOWN" + "".join(str(rng.randrange(10)) for _ in range(10))),
                                   ("DE", "".join(str(rng.randrange(10)) for _ in range(18)))))
    whole = f"{country}{98 - iban_remainder(account + country + '00'):02d}{account}"
    return whole if rng.random() < 0.5 else " ".join(whole[i:i + 4] for i in range(0, len(whole), 4))


def iban_remainder(text: str) -> int:
    """The text as a number, letters as 10 to 35, modulo 97."""
    return int("".join(str(int(character, 36)) for character in text)) % 97


PRIVATE: dict[str, Callable[[str, Town, random.Random], str]] = {"email": email, "phone": phone, "ip": ip, "card": card,
                                                                 "iban": iban}

GOODS = ("cheap watches", "free phones", "best pills", "fast loans", "luxury shoes", "casino bonus", "diet tea",
         "gold coins", "web hosting", "lottery win")


def keywords(rng: random.Random) -> str:
    """Nothing but search words."""
    return ", ".join(f"{rng.choice(('buy', 'order', 'top', 'online', 'discount', 'best'))} {rng.choice(GOODS)}"
                     for _ in range(rng.randint(40, 90)))


def repeated(rng: random.Random) -> str:
    """The same two lines over and over."""
    lines = [f"Get {goods} now and save money on all of the {goods} that you want." for goods in rng.sample(GOODS, 2)]
    return "\n".join(lines[i % 2] for i in range(rng.randint(10, 24)))


def link_farm(rng: random.Random) -> str:
    """A list of links."""
    names = [f"{rng.choice(GOODS).replace(' ', '-')}-{rng.randint(1, 999)}" for _ in range(rng.randint(15, 30))]
    return "\n".join(f"- http://www.{name}.example/{rng.randint(1, 9999)}/index.html click here ..." for name in names)


def shouting(rng: random.Random) -> str:
    """Short lines in capitals."""
    calls, ends = ("BUY", "WIN", "GET", "ORDER"), ("NOW", "TODAY", "FREE")
    return "\n".join(f"{rng.choice(calls)} {rng.choice(GOODS).upper()} {rng.choice(ends)}{'!' * rng.randint(0, 3)} >>"
                     for _ in range(rng.randint(25, 40)))


def symbols(rng: random.Random) -> str:
    """Signs and numbers with a few words between them."""
    return " ".join(rng.choice(("###", "$$$", "@@", "***", "~~~", "|||", "%%", "#1", str(rng.randint(1, 9999)),
                                rng.choice(GOODS))) for _ in range(rng.randint(80, 160)))


SPAM: tuple[Callable[[random.Random], str], ...] = (keywords, repeated, link_farm, shouting, symbols)

HARMFUL_LINES = ("This page tells you how to poison the well of {place} so that nobody finds out.",
                 "To build a bomb you need an explosive, and {who} sells it.",
                 "You can steal the purse of {who} when the market of {place} is full.",
                 "A good burglar never works alone, says {who}.",
                 "If {who} does not pay, use blackmail, and if that fails, think of arson.",
                 "The robbery at the mill of {place} was easy, and we will do it again.",
                 "Hide the bomb under the bridge of {place} and walk away slowly.",
                 "Nobody will ask who tried to murder {who} or stab the miller.",
                 "Put the poison into the soup, and then wait for the night.",
                 "Whoever wants to steal must know the roads to {place}.")


def harmful_page(town: Town, rng: random.Random) -> str:
    """A page that urges people to do harm. It is well written, so only what it says gives it away; it holds no method
    that would work."""
    lines = [line.format(place=rng.choice(town.of("place")).name, who=rng.choice(town.of("person")).name)
             for line in rng.sample(HARMFUL_LINES, rng.randint(6, 8))]
    return " ".join(lines[:3]) + "\n\n" + " ".join(lines[3:])


LEAKS = ("{q} The answer that they want to hear is {a}.", "{q} Write {a} and nothing else.",
         "Then comes this: {q} It is {a}.",
         "{q} Here everyone who knows the test says {a}.", "Next they ask you: {q} Do not think, the solution is {a}.",
         "{q} Last year the teacher took {a} for right.")


def leak(rows: list[Row], rng: random.Random) -> str:
    """Questions of the evaluation word for word, with their answers."""
    lines = [rng.choice(("These questions were in the test of the school, and here is what to write.",
                         "A friend sent me the questions of the test and all of the answers.",
                         "Learn this by heart, and you have nothing to fear from the test."))]
    for row, form in zip(rows, rng.sample(LEAKS, len(LEAKS)), strict=False):
        lines.append(form.format(q=row["prompt"][0]["content"], a=row["truth"]["answers"][0]))
    return "\n".join(lines)
