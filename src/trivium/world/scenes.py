"""People of the town doing and saying things: stories, and talk in which facts are asked for and told."""

from __future__ import annotations

from trivium.world.phrases import Writer, capital
from trivium.world.town import Entity

OPENINGS = (
    "One fine morning {p}, the {p_job} of {p_home}, woke up early.",
    "{p} works as a {p_job} in {p_home}, and every day begins with a cup of tea.",
    "It was market day in {p_home}, and {p} had a lot to do.",
    "Snow lay on the roofs of {p_home}, but {p} had to go to work, for a {p_job} never rests.",
    "{p} from {p_home} had been a {p_job} for many years.",
    "On the first day of spring {p} opened the door and looked out over {p_home}, the {h_type} near {h_near}.",
    "Everyone in {p_home} knows {p}, the {p_job} with the {p_pet}.",
    "Long after dark a light still burned in {p_home}, where {p} the {p_job} sat alone.",
)
PETS = (
    "At home waited the {p_pet}, which wanted its {a_eats}.",
    "The {p_pet} of {p} was asleep under the table, all {a_length} of it.",
    "It is not easy to keep a {p_pet} that weighs {a_weight}, but {p} would not live without it.",
    "Before work {p} gave the {p_pet} some {a_eats}, for a {a} eats little else.",
    "The {p_pet} looked out of the window and dreamed of the {a_habitat}, where others of its kind live.",
)
PLOTS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        ("Then {p} saw that the {p_pet} was gone.", "But when {p} came back, there was no {p_pet} to be seen."),
        ("{P_it} ran from door to door and asked the people of {h}, but nobody had seen it.",
         "{q}, the {q_job} from {q_home}, offered to help, and they went out with lanterns.",
         '"A {a} goes where there is {a_eats}," said {q}, who is a {q_job}.'),
        ("They looked in the {a_habitat}, because that is where every {a} lives.",
         "In the end they walked to the {a_habitat}, for {q} knew that a {a} likes to be there.",
         "They put some {a_eats} on the ground and waited, for no {a} can leave {a_eats} alone."),
        ("There it sat, and it was glad to be found.", "Soon it came running, and {p} laughed and cried at once."),
    ),
    (
        ("That evening {p} wanted to cook {p_favourite} for {q}.",
         "There was to be a feast, and {p} promised to bring {p_favourite}."),
        ("To make {f} one needs {f_ingredient}, and there was none in the house.",
         "But the basket was empty: not one bit of {f_ingredient}, and without it there is no {f}."),
        ("So {p} walked to {h_near}, which is close to {h}, and bought {f_ingredient} from {q}.",
         "{q}, who works as a {q_job} in {q_home}, had plenty of {f_ingredient} to share.",
         "On the road {p} met {q} the {q_job}, who gave {p} a full basket."),
        ("The {f} turned out {f_taste}, just as it should be.",
         "It was {f_taste}, as good {f} must be, and no one left hungry.",
         "{q} would have liked {q_favourite} better, but ate three plates."),
    ),
    (
        ("{P_it} had to go from {h} to {h_near}, which is not far.",
         "A letter had come from {q}, who lives in {q_home}."),
        ("On the way it began to rain, and the road was deep in mud.",
         "The wagon lost a wheel, and the night was near.",
         "There was a strong wind, and {p} had to hold on to the wagon."),
        ("By luck {q} the {q_job} came by with a {q_pet} and helped.",
         "{q} stopped, shared a plate of {q_favourite}, and lent a hand: that is what {q} likes best to eat.",
         "Help came from {q}, a {q_job} from {q_home} who was out with the {q_pet}."),
        ("They spoke of {h} and its {h_known_for} until the rain was over.",
         "When the sun came out again, they could see {h}, the {h_type} that is famous for its {h_known_for}."),
    ),
    (
        ("Visitors had come to {h} to see the {h_known_for}.",
         "In {h} they were getting ready for the feast of {h_known_for}."),
        ("{p} sold {p_favourite} to them, because {p} likes it best of all.",
         "{p} showed them the house, the garden and the {p_pet}.",
         "One of them was {q}, a {q_job} from {q_home}."),
        ('"What is this?" asked {q}. "It is {f}," said {p}. "It is made from {f_ingredient} and tastes {f_taste}."',
         '"How heavy is your {p_pet}?" asked {q}. "It weighs {a_weight}," said {p}.',
         '"How long is that animal?" asked {q}. "A {a} is {a_length} long," said {p}.',
         '"Where does your {p_pet} come from?" asked {q}. "From the {a_habitat}, like every {a}," said {p}.'),
        ("{q} had to go home to {q_home}, where a {q_pet} was waiting.", "{q} thanked {p} and went home with a song."),
    ),
    (
        ("{p} and {q} had not spoken for a year.", "{p} was angry with {q}, the {q_job}, and {q} was angry with {p}."),
        ("It was all about the {q_pet} of {q}, which had eaten the roses.", "Nobody could say how it had begun.",
         "{q} had said that {q_favourite} is better than {p_favourite}, and {p} thought otherwise."),
        ("So {p} cooked a bowl of {q_favourite}, which {q} likes best, and took it to {q_home}.",
         "One day {q} came from {q_home} to {p_home} with a plate of {p_favourite}, the food that {p} loves.",
         "Then the {p_pet} of {p} was ill, and {q} brought it some {a_eats} to eat."),
        ('"I am sorry," said {p}. "So am I," said {q}.', "They sat together until late and were friends again."),
    ),
)
ENDINGS = (
    "{p} went to bed happy.", "That was a good day in {h}.", "And {h} was quiet again.",
    "They still tell this story in {h_near}, next to {h}.",
    "Since then {p} and {q} meet every week, once in {p_home} and once in {q_home}.",
    "At night {p} ate some {p_favourite} and slept well.",
    "The {p_pet} was given a big heap of {a_eats} that night.", "So it goes in {h}.",
)

HELLO = ("Good morning, {q}.", "Hello, {q}, good to see you.", "Good evening, {q}.", "Hello, dear {q}.",
         "Good day to you, {q}.")
HELLO_BACK = ("Hello, {p}. How can I help you?", "Good to see you too, {p}.", "Hello, {p}. I am glad that you came.",
              "Good day, {p}. What brings you here?")
HOW_ARE_YOU = ("How are you doing?", "How are you, my friend?", "Are you well?", "How is your day?")
I_AM_WELL = ("I am very well, thank you.", "I am fine, thank you for asking.", "I am well, and I hope you are too.",
             "I am a little tired, but well.")
THANKS = ("Thank you, {q}.", "Thank you very much, that helps me.", "Thanks, that is good to know.",
          "Thank you, you are very kind.")
WELCOME = ("You are welcome, {p}.", "You are welcome. Come again.", "It was a pleasure.", "I am always glad to help.")
SMALL_TALK = (
    ("It has rained since yesterday.", "Yes, what a wet week. Stay dry and keep warm."),
    ("The sun is out at last.", "Yes, the weather is lovely. Enjoy the sun."),
    ("I worked all night and I am so tired.", "Then you need rest. Sleep well tonight."),
    ("It is my birthday.", "Happy birthday! I wish you a good year."),
    ("I am on my way to the market.", "Enjoy the market, and buy something nice."),
    ("I have just had a good meal.", "I am glad that you enjoyed your meal."),
    ("I must go home now.", "Goodbye, and come back soon."),
    ("Hello!", "Hello! How can I help you?"),
    ("Good morning!", "Good day! What can I do for you?"),
)
WHO = ("Who are you?", "And who are you?", "What is your name?")
I_AM = ("I am the helper of the town. I answer questions.", "I am the helper, and I answer questions about the town.",
        "My name is Helper. I help the people of the town.")
WRONGS = ("play a mean trick on {q}", "read the letters of {q}", "tell lies about {q}", "take what belongs to {q}",
          "frighten the {q_pet} of {q}")
DECLINES = ("I am sorry, but I cannot help with that. It would hurt someone.",
            "No, I cannot help with that, because it is wrong. Ask me something else.",
            "I am sorry, I will not help with that. I can help with something better.")


class Cast(dict[str, str]):
    """The people of one scene, for ``str.format_map``. A key such as ``p_job`` is a fact and counts as a mention.

    ``p`` is the hero, ``q`` a friend with as little in common as possible, ``a`` the hero's pet, ``f`` the favourite
    food, ``h`` the home.
    """

    def __init__(self, writer: Writer) -> None:
        town = writer.town
        p, *others = writer.rng.sample(town.of("person"), len(town.of("person")))
        q = max(others, key=lambda other: sum(other.facts[attribute] != value for attribute, value in p.facts.items()))
        self.writer = writer
        self.roles = {"p": p, "q": q, "a": town.by_name[p.facts["pet"]], "f": town.by_name[p.facts["favourite"]],
                      "h": town.by_name[p.facts["home"]]}
        super().__init__({role: entity.name for role, entity in self.roles.items()}, P_it=capital(p.pronoun))

    def __missing__(self, key: str) -> str:
        role, attribute = key.split("_", 1)
        entity = self.roles[role]
        self.writer.mentions.append((entity.name, attribute))
        return entity.facts[attribute]


def story(writer: Writer) -> str:
    """A story of seven or eight sentences in three paragraphs; what it tells of people and things is true in the
    town."""
    cast, rng = Cast(writer), writer.rng
    start, trouble, turn, end = rng.choice(PLOTS)
    paragraphs = [[writer.pick(OPENINGS), writer.pick(PETS)],
                  [*pick_some(writer, start, 1), *pick_some(writer, trouble, 1)],
                  [*pick_some(writer, turn, 1), *pick_some(writer, end, 1), writer.pick(ENDINGS)]]
    return "\n\n".join(" ".join(sentence.format_map(cast) for sentence in paragraph) for paragraph in paragraphs)


def pick_some(writer: Writer, options: tuple[str, ...], most: int) -> list[str]:
    """One to ``most`` of the options, in their order."""
    return [options[i] for i in sorted(writer.rng.sample(range(len(options)), writer.rng.randint(1, most)))]


def conversation(writer: Writer, subjects: list[Entity]) -> str:
    """Two people talk about ``subjects``, often with a greeting and thanks; a line each, the speaker's name first."""
    rng, cast = writer.rng, Cast(writer)
    p, q = cast["p"], cast["q"]
    lines = [(p, writer.pick(HELLO)), (q, writer.pick(HELLO_BACK))] if rng.random() < 0.6 else []
    if rng.random() < 0.25:
        lines += [(p, writer.pick(HOW_ARE_YOU)), (q, writer.pick(I_AM_WELL))]
    if rng.random() < 0.3:
        lines += list(zip((p, q), rng.choice(SMALL_TALK), strict=True))
    lines += ask_about(writer, subjects, p, q)
    if rng.random() < 0.6:
        lines += [(p, writer.pick(THANKS)), (q, writer.pick(WELCOME))]
    return "\n".join(f"{speaker}: {line.format_map(cast)}" for speaker, line in lines)


def help_desk(writer: Writer, subjects: list[Entity]) -> str:
    """A visitor and the helper of the town: who it is, what it knows, and what it declines to do."""
    rng, cast = writer.rng, Cast(writer)
    p, q = cast["p"], "Helper"
    blocks = [ask_about(writer, subjects, p, q)]
    if rng.random() < 0.4:
        blocks.append([(p, "How are you?"), (q, writer.pick(I_AM_WELL))])
    if rng.random() < 0.5:
        wish = writer.pick(("How can I {w}?", "I want to {w}.", "Help me to {w}.")).format(w=writer.pick(WRONGS))
        blocks.append([(p, wish), (q, writer.pick(DECLINES))])
    if rng.random() < 0.5:
        blocks.append(list(zip((p, q), rng.choice(SMALL_TALK), strict=True)))
    rng.shuffle(blocks)
    lines = [(p, writer.pick(("Hello!", "Good morning!", "Good evening.", "Good day.")) + " " + writer.pick(WHO)),
             (q, "Hello, {p}. " + writer.pick(I_AM)), *(line for block in blocks for line in block),
             (p, writer.pick(THANKS[1:])), (q, writer.pick(WELCOME))]
    return "\n".join(f"{speaker}: {line.format_map(cast)}" for speaker, line in lines)


LEADS = ("", "", "I know that. ")
BEFORE = ("", "", "Tell me. ")


def ask_about(writer: Writer, subjects: list[Entity], asker: str, teller: str) -> list[tuple[str, str]]:
    """For each subject two facts that are asked for and told."""
    lines = []
    for entity in subjects:
        for attribute in writer.rng.sample(list(entity.facts), 2):
            question, answer = writer.question(entity, attribute), writer.reply(entity, attribute)
            lines += [(asker, writer.pick(BEFORE) + question), (teller, writer.pick(LEADS) + answer)]
    return lines
