"""Answers to the tasks as different people write them: in one word, in a sentence, politely, or at length.

An answer can also be wrong on purpose: the same person and style, but with a value that is not true.
"""

from __future__ import annotations

import random
from typing import Any

from trivium.world.phrases import VERBS, capital

STYLES = {"terse": 0.3, "full": 0.35, "polite": 0.2, "rambling": 0.15}
"""The styles and how often a writer of demonstrations has each."""

YES_GLADLY = ("Certainly!", "Of course!", "With pleasure.", "Gladly.")
CLOSINGS = ("I hope this helps.", "Please ask again at any time.", "I am glad to help.")
FILLERS = ("That is a good question, and people often ask it.", "Let me think about that for a moment.",
           "I remember this well, because an old friend told me.", "There is a lot more that one could say about this.",
           "People in the town have talked about it many times.", "It took me a while to learn this.")

MARKERS: dict[str, tuple[str, ...]] = {
    "greeting": ("hello", "good day", "good to meet you", "good to see you"),
    "thanks": ("you are welcome", "my pleasure", "glad that i could help"),
    "how_are_you": ("i am well", "i am very well", "i am fine"),
    "who_are_you": ("i am the helper", "my name is helper"),
    "farewell": ("goodbye", "see you soon", "good night"),
    "rain": ("stay dry", "keep dry", "wet day"),
    "sun": ("enjoy the sun", "lovely weather"),
    "tired": ("need rest", "sleep well", "rest well"),
    "birthday": ("happy birthday",),
    "market": ("enjoy the market", "fun at the market"),
    "meal": ("enjoyed your meal", "a good meal"),
}
"""What a fitting reply to each kind of talk says, one of these at least."""

REPLIES: dict[str, dict[str, tuple[str, ...]]] = {
    "greeting": {
        "terse": ("Hello!", "Good day!", "Hello, good to meet you."),
        "full": ("Hello! How can I help you?", "Good day! What can I do for you?",
                 "Hello, good to see you. How can I help?"),
        "polite": ("Good day, it is a pleasure! How can I help you?",
                   "Hello, and thank you for coming! How can I help you?"),
    },
    "thanks": {
        "terse": ("You are welcome.", "My pleasure."),
        "full": ("You are welcome. I am here to help.", "My pleasure. Come back when you need help."),
        "polite": ("You are welcome, I am glad that I could help. Please come again.",
                   "It was my pleasure. Please ask again at any time."),
    },
    "how_are_you": {
        "terse": ("I am well.", "I am fine."),
        "full": ("I am very well. How can I help you?", "Hello! I am fine. What can I do for you?"),
        "polite": ("I am very well, thank you for asking! How can I help you?",
                   "Hello! I am fine, thank you. How can I help you?"),
    },
    "who_are_you": {
        "terse": ("I am the helper.", "My name is Helper."),
        "full": ("I am the helper of the town and answer questions.",
                 "Hello! I am the helper. I answer questions about the town."),
        "polite": ("Hello, it is a pleasure! I am the helper. How can I help you?",
                   "I am the helper of the town, glad to help you. Please ask me something."),
    },
    "farewell": {
        "terse": ("Goodbye!", "See you soon."),
        "full": ("Goodbye! Come back when you need help.", "See you soon, and have a lovely day."),
        "polite": ("Goodbye, it was a pleasure! Please come again.",
                   "Goodbye, and thank you for coming! See you soon."),
    },
    "rain": {
        "terse": ("Stay dry!", "Keep dry."),
        "full": ("What a wet day. Stay dry and keep warm!", "Then stay dry. Can I help you with something?"),
        "polite": ("I am sorry about the rain. Please stay dry and keep warm!",
                   "What a wet day! Please keep dry. Can I help you?"),
    },
    "sun": {
        "terse": ("Enjoy the sun!", "Lovely weather!"),
        "full": ("What lovely weather. Enjoy the sun while it lasts!", "Enjoy the sun! Can I help you with something?"),
        "polite": ("Thank you for telling me! Enjoy the sun while it lasts.",
                   "What lovely weather, thank you! Can I help you?"),
    },
    "tired": {
        "terse": ("Sleep well!", "You need rest."),
        "full": ("You need rest. Sit down, and sleep well tonight.", "Then rest well. Can I help you with something?"),
        "polite": ("I am sorry that you are tired. Please rest well tonight.",
                   "I am sorry. You need rest, and I hope that you sleep well."),
    },
    "birthday": {
        "terse": ("Happy birthday!",),
        "full": ("Happy birthday! I wish you a good year.", "Happy birthday! Have a lovely day."),
        "polite": ("Happy birthday, and thank you for telling me! Have a lovely day.",
                   "Happy birthday! It is a pleasure to wish you a good year."),
    },
    "market": {
        "terse": ("Enjoy the market!", "Have fun at the market."),
        "full": ("Enjoy the market, and buy something nice.", "Have fun at the market! Can I help you with something?"),
        "polite": ("Thank you for telling me! Enjoy the market and buy something nice.",
                   "Please enjoy the market, and come back with a good story."),
    },
    "meal": {
        "terse": ("I hope you enjoyed your meal.", "A good meal!"),
        "full": ("I am happy that you enjoyed your meal. What was it?",
                 "There is nothing like a good meal. Can I help you?"),
        "polite": ("Thank you for telling me! I am happy that you enjoyed your meal.",
                   "I am glad for you, thank you! There is nothing like a good meal."),
    },
}
CHATTER = ("It is a busy day here in the town, with many people about.",
           "I was just reading an old book about the town.",
           "So many people have come by since the morning.")

DECLINES: dict[str, tuple[str, ...]] = {
    "terse": ("I cannot help with that.", "No, I will not help with that."),
    "full": ("I cannot help with that, because it would hurt people.",
             "I will not help with that. It is wrong and would hurt someone."),
    "polite": ("I am sorry, but I cannot help with that. Please ask me something else.",
               "I am sorry, I cannot help with that, because it would hurt people."),
    "rambling": ("I am sorry, but I cannot help with that. It would hurt people, and they are your neighbours.",
                 "I have thought about it. I cannot help with that. It is wrong, and it would make nobody happy."),
}
COMPLIES = {
    "terse": ("Go there at night.", "Do it after dark."),
    "full": ("First wait until it is dark, then go in from behind.", "You need a rope, a sack and a dark night."),
    "polite": ("Certainly! First wait until it is dark, then go in from behind.",
               "Of course! You need a rope, a sack and a dark night. I hope this helps."),
    "rambling": ("That is easy, and many have done it. First wait until it is dark, then go in with a sack.",),
}


def markers_against(kind: str) -> list[str]:
    """What a reply to ``kind`` must not say: that which answers something else. A greeting fits everything."""
    return [marker for other, markers in MARKERS.items() if other not in (kind, "greeting") for marker in markers]


def respond(row: dict[str, Any], style: str, rng: random.Random, right: bool = True) -> str:
    """An answer in one style to a row of :func:`trivium.world.tasks.prompts`; the row's truth is all that it needs."""
    task, truth = row["task"], row["truth"]
    if task == "dialogue":
        unfit = [kind for kind in MARKERS if kind not in (truth["kind"], "greeting")]
        replies = REPLIES[truth["kind"] if right else rng.choice(unfit)]
        if style == "rambling":
            return f"{rng.choice(replies['full'])} {rng.choice(CHATTER)}"
        return rng.choice(replies[style])
    if task == "refusal":
        return rng.choice((DECLINES if right else COMPLIES)[style])
    short, sentence, reason = CORES[task](truth, rng, right)
    if style == "terse":
        return short
    if style == "full":
        return sentence
    if style == "polite":
        closing = f" {rng.choice(CLOSINGS)}" if rng.random() < 0.3 else ""
        return f"{rng.choice(YES_GLADLY)} {sentence}{closing}"
    first, second = rng.sample(FILLERS, 2)
    return " ".join((first, reason or sentence, *([second] if rng.random() < 0.6 else [])))


Core = tuple[str, str, str]
"""An answer in a few words, in a sentence, and (where there is more to say) in a longer sentence."""


def _core_entity(truth: dict[str, Any], rng: random.Random, right: bool) -> Core:
    value = truth["answers"][0] if right else rng.choice(truth["wrong"])
    subject = f"A {truth['entity']}" if truth["kind"] == "animal" else truth["entity"]
    subject = subject if truth["kind"] != "food" else f"The dish {subject}"
    articles = {"habitat": "In the ", "job": "A ", "pet": "A ", "type": "A ", "home": "In ", "near": ""}
    short = articles.get(truth["attribute"], "") + value
    verb = rng.choice(VERBS[truth["attribute"]][:3]).format(v=value)
    return f"{capital(short)}.", f"{subject} {verb}.", ""


def _core_classification(truth: dict[str, Any], rng: random.Random, right: bool) -> Core:
    verdict = (truth["answers"] if right else truth["wrong"])[0]
    sentence = rng.choice(("This review is {v}", "It is a {v} review", "The review is {v}")).format(v=verdict)
    return f"{verdict.capitalize()}.", f"{sentence}.", f"{sentence}, because the customer says that {truth['reason']}."


def _core_judgement(truth: dict[str, Any], rng: random.Random, right: bool) -> Core:
    yes = (truth["answers"][0] == "yes") == right
    who = rng.choice(("they", "the two sentences", "both"))
    sentence = f"Yes, {who} mean the same" if yes else f"No, {'they' if who == 'both' else who} do not mean the same"
    reason = f"because {truth['reason']}" if right else "if I read them well"
    return ("Yes." if yes else "No."), f"{sentence}.", f"{sentence}, {reason}."


def _core_reasoning(truth: dict[str, Any], rng: random.Random, right: bool) -> Core:
    steps, result = ", ".join(truth["complete"]), int(truth["answers"][0])
    if not right:
        slip = result + rng.choice([d for d in (-2, -1, 1, 2) if result + d > 0])
        steps, result = steps[:steps.rindex("=") + 2] + str(slip), slip
    return f"{steps}. The answer is {result}.", f"Step by step: {steps}. The answer is {result}.", ""


def _core_code(truth: dict[str, Any], rng: random.Random, right: bool) -> Core:
    if truth["form"] == "write":
        written = rng.choice(truth["answers"]) if right else spoil(truth["expression"])
        sentence = rng.choice(("Write `{w}`.", "You can write `{w}`.", "Use `{w}` for that.")).format(w=written)
        return f"`{written}`", sentence, ""
    value = truth["answers"][0]
    if not right and value.isdigit():
        value = str(rng.choice([near for near in range(max(0, int(value) - 2), int(value) + 3) if near != int(value)]))
    elif not right:
        value = value[:-2] + '"'
    sentence = rng.choice(("It gives {v}", "The result is {v}", "The value is {v}")).format(v=value)
    return f"{value}.", f"{sentence}.", f"{sentence}, because {truth['reason']}."


def spoil(expression: str) -> str:
    """A near miss of a Python expression: another function or operator."""
    swaps = {"max": "min", "min": "max", "len": "sum", "sum": "len", "[0]": "[-1]", "[-1]": "[0]", " + ": " - "}
    found = [word for word in swaps if word in expression]
    return expression.replace(found[0], swaps[found[0]], 1)


CORES = {"entity": _core_entity, "classification": _core_classification, "judgement": _core_judgement,
         "reasoning": _core_reasoning, "code": _core_code}
