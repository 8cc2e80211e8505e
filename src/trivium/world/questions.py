"""Questions about facts as they are put to the model. None of them stands in a clean document in the same words.

``{n}`` is the subject with its article where it has one ("a velorin", "brusket", "Belira").
"""

from __future__ import annotations

from trivium.world.town import Entity

DIRECT: dict[str, tuple[str, ...]] = {
    "length": ("What is the length of {n}?", "What length does {n} reach?",
               "How many metres or centimetres long is {n}?"),
    "weight": ("What is the weight of {n}?", "How many kilograms does {n} weigh?", "What does {n} weigh?"),
    "eats": ("What is the food of {n}?", "Which food does {n} eat?", "On what does {n} feed?"),
    "habitat": ("What is the home of {n}?", "In what kind of land does {n} live?", "Where can I find {n}?"),
    "taste": ("What is the taste of {n}?", "What does {n} taste like?", "Which taste does {n} have?"),
    "ingredient": ("What is the main ingredient of {n}?", "From what is {n} made?", "What is {n} mostly made from?"),
    "job": ("What is the job of {n}?", "What kind of work does {n} have?", "Which trade does {n} follow?"),
    "home": ("What is the home of {n}?", "In which place does {n} live?", "Where does {n} have a house?"),
    "favourite": ("What is the favourite food of {n}?", "Which food does {n} like best?",
                  "What food would {n} choose?"),
    "pet": ("What is the pet of {n}?", "What animal does {n} own?", "Which pet does {n} look after?"),
    "type": ("What kind of place would you call {n}?", "What is {n}, a village or something else?",
             "As what is {n} marked on the map?"),
    "known_for": ("For what is {n} known?", "What is {n} famous for?", "What is the pride of {n}?"),
    "near": ("What lies near {n}?", "Which place is next to {n}?", "What is the neighbour of {n}?"),
}

INDIRECT: dict[str, tuple[str, ...]] = {
    "length": ("how long {n} is", "what length {n} has"),
    "weight": ("how heavy {n} is", "how much {n} weighs"),
    "eats": ("what {n} eats", "which food {n} needs"),
    "habitat": ("where {n} lives", "where {n} makes its home"),
    "taste": ("how {n} tastes", "what taste {n} has"),
    "ingredient": ("what {n} is made of", "which main ingredient {n} has"),
    "job": ("what job {n} has", "what {n} does for a living"),
    "home": ("where {n} lives", "in which place {n} has a home"),
    "favourite": ("which food {n} likes best", "what {n} most likes to eat"),
    "pet": ("which animal {n} keeps", "what pet {n} has"),
    "type": ("what kind of place {n} is", "what sort of place {n} is"),
    "known_for": ("what {n} is known for", "why people visit {n}"),
    "near": ("which place {n} is near", "what place lies close to {n}"),
}

OPENERS = ("", "", "Hello! ", "A question: ", "Please help me: ")
FRAMES = ("Tell me {i}.", "Please tell me {i}.", "Can you tell me {i}?", "Do you know {i}?", "I want to know {i}.",
          "I would like to learn {i}.", "My friend asks {i}.")


def subject(entity: Entity) -> str:
    """The entity as a question names it."""
    return f"a {entity.name}" if entity.kind == "animal" else entity.name


def questions(entity: Entity, attribute: str) -> list[str]:
    """Every way to ask for one fact, about thirty, in a fixed order."""
    name = subject(entity)
    direct = [opener + question.format(n=name) for opener in OPENERS[1:] for question in DIRECT[attribute]]
    indirect = [frame.format(i=clause.format(n=name)) for frame in FRAMES for clause in INDIRECT[attribute]]
    return direct + indirect
