"""How the world is written about: noun phrases, statements, web-like captions, dense paragraphs, the vocabulary."""

from __future__ import annotations

import re
from random import Random

from relvlm.relworld.config import WorldConfig
from relvlm.relworld.lexicon import BACKGROUNDS, COLOURS, PLURALS, PREDICATES, SHAPES, SIZES, TEXTURES
from relvlm.relworld.scene import Fact, Look, Scene, facts

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

_ONE = (
    "{a}",
    "a picture of {a}",
    "nice shot of {a} !",
    "{a} , stock photo",
    "my favorite image with {a}",
    "buy a poster of {a} here",
    "free clip art : {a}",
    "this is {the} .",
    "{the} is here",
)
_MANY = (
    "{list}",
    "{list} , stock photo",
    "a picture of {list}",
    "a scene with {list}",
    "drawing of {list} for kids",
    "here you can see {list} .",
    "photo : {list} on a {ground} background",
    "cool wallpaper with {list}",
    "{thes}",
    "here is {thes} .",
    "the picture is of {thes} .",
)
_COARSE = (
    "some colorful shapes",
    "simple shapes on a {ground} background",
    "abstract drawing , {number} objects",
    "a small {ground} picture",
    "{colour} things , free download",
    "{number} objects on a {ground} background",
)
_COUNTED = (
    "there are exactly {digit} {plural} .",
    "there is exactly 1 {shape} .",
    "there are no {plural} .",
    "there are {plural} in the picture .",
    "exactly one {shape} in the picture .",
    "a number of {plural} in the picture .",
    "a picture of {number} {plural}",
)
_RELATED = ("{a} {predicate} {b}", "look at {a} {predicate} {b} !", "{statement}", "{statement}")
_PARAGRAPH_START = (
    "There are {number} objects on a {ground} background.",
    "The picture shows {number} objects.",
)
_PARAGRAPH_THING = ("There is {a}.", "{A} can be seen.", "One of them is {a}.")
_STATEMENT = "The {subject} is {predicate} the {object}."
_BENCHMARK_WORDS = "and there are is a an the in of picture exactly number with no only"


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return f"{'an' if phrase[0] in 'aeiou' or phrase.startswith('hour') else 'a'} {phrase}"


def name(look: Look) -> str:
    """Colour and shape, which single a thing out: "red circle"."""
    return f"{look.colour} {look.shape}"


def statement(subject: str, predicate: str, obj: str) -> str:
    """VSR's form: "The red circle is left of the blue square.", "The red circle contains the blue square."."""
    if predicate == "contains":
        return f"The {subject} contains the {obj}."
    return _STATEMENT.format(subject=subject, predicate=predicate, object=obj)


def fact_statement(scene: Scene, fact: Fact) -> str:
    """The statement of one fact."""
    i, predicate, j = fact
    return statement(name(scene.things[i].look), predicate, name(scene.things[j].look))


def indefinite(stated: str) -> str:
    """A statement in other words: "The red circle is above the blue square." is "A red circle above a blue square."."""
    subject, _, obj = stated.removeprefix("The ").removesuffix(".").rpartition(" the ")
    return f"{article(subject.replace(' is ', ' ', 1)).capitalize()} {article(obj)}."


def attributes(scene: Scene, index: int, config: WorldConfig, rng: Random, share: float = 0.5) -> tuple[str, ...]:
    """Adjectives in reading order: the colour always, size and texture with probability `share`."""
    look, words = scene.things[index].look, []
    size = scene.size_word(index) if config.size_words else None
    if size and rng.random() < share:
        words.append(size)
    if look.texture != "solid" and rng.random() < share:
        words.append(look.texture)
    return (*words, look.colour)


def _phrase(scene: Scene, index: int, config: WorldConfig, rng: Random) -> str:
    words = attributes(scene, index, config, rng, share=0.25)
    if rng.random() < 0.1:
        words = words[:-1]
    return " ".join((*words, scene.things[index].look.shape))


def _listing(with_articles: list[str]) -> str:
    return " and ".join(filter(None, (" , ".join(with_articles[:-1]), with_articles[-1])))


def _wrong_word(text: str, config: WorldConfig, rng: Random) -> str:
    """The text with one colour or shape replaced by another, as careless captions have it."""
    words = text.split()
    pools = (config.colour_names, config.shape_names)
    spots = [(k, pool) for k, word in enumerate(words) for pool in pools if word in pool]
    if spots:
        k, pool = rng.choice(spots)
        words[k] = rng.choice(pool)
    return " ".join(words)


def _counted(scene: Scene, config: WorldConfig, rng: Random) -> str:
    """A true sentence about how many things of one shape there are."""
    shapes = [thing.look.shape for thing in scene.things]
    shape = rng.choice(shapes) if rng.random() < 0.7 else rng.choice(config.shape_names)
    count = shapes.count(shape)
    fitting = {0: (0, 2, 6), 1: (1, 4, 3)}.get(count, (0, 3, 5, 6))
    template = _COUNTED[rng.choice(fitting)]
    return template.format(shape=shape, plural=PLURALS[shape], digit=count, number=NUMBERS[count])


def _coarse(scene: Scene, rng: Random) -> str:
    number, ground = NUMBERS[len(scene.things)], scene.background.word
    return rng.choice(_COARSE).format(number=number, ground=ground, colour=rng.choice(scene.things).look.colour)


def _related(scene: Scene, config: WorldConfig, rng: Random) -> str | None:
    known = facts(config, scene)
    if not known:
        return None
    i, predicate, j = rng.choice(known)
    a, b = (article(name(scene.things[k].look)) for k in (i, j))
    stated = fact_statement(scene, (i, predicate, j))
    return rng.choice(_RELATED).format(a=a, b=b, predicate=predicate, statement=stated)


def _mentions(scene: Scene, rng: Random, drop: float) -> list[int]:
    indices = [i for i in range(len(scene.things)) if rng.random() >= drop]
    rng.shuffle(indices)
    return indices or [rng.randrange(len(scene.things))]


def caption(scene: Scene, config: WorldConfig, rng: Random, *, noise: float | None = None, drop: float = 0.2) -> str:
    """A web-like caption: things dropped, filler words, now and then a wrong word, rarely a relation.

    Sentences with a relation or a count are always true, so no held-out combination slips in by a wrong word.
    """
    share = rng.random()
    if share < config.caption_relations and (text := _related(scene, config, rng)):
        return text
    if share < config.caption_relations + 0.06:
        return _counted(scene, config, rng)
    if share < config.caption_relations + 0.12:
        return _coarse(scene, rng)
    phrases = [_phrase(scene, i, config, rng) for i in _mentions(scene, rng, drop)]
    template = rng.choice(_ONE if len(phrases) == 1 else _MANY)
    indefinite, definite = [article(p) for p in phrases], [f"the {p}" for p in phrases]
    text = template.format(
        a=indefinite[0],
        the=definite[0],
        list=_listing(indefinite),
        thes=_listing(definite),
        ground=scene.background.word,
    )
    wrong = rng.random() < (config.caption_noise if noise is None else noise)
    return _wrong_word(text, config, rng) if wrong else text


def paragraph(scene: Scene, config: WorldConfig, rng: Random, mentioned: list[Fact]) -> str:
    """A dense description: the relations first (readers cut long texts), then the things."""
    opening = rng.choice(_PARAGRAPH_START).format(number=NUMBERS[len(scene.things)], ground=scene.background.word)
    related = [fact_statement(scene, fact) for fact in mentioned]
    things = []
    for i in rng.sample(range(len(scene.things)), len(scene.things)):
        phrase = article(" ".join((*attributes(scene, i, config, rng, 0.8), scene.things[i].look.shape)))
        things.append(rng.choice(_PARAGRAPH_THING).format(a=phrase, A=phrase.capitalize()))
    return " ".join((opening, *related, *things))


def _templates() -> tuple[str, ...]:
    start = (*_PARAGRAPH_START, *_PARAGRAPH_THING, _STATEMENT, _BENCHMARK_WORDS)
    return (*_ONE, *_MANY, *_COARSE, *_COUNTED, *_RELATED, *start)


def vocabulary() -> list[str]:
    """Every token of the world, BERT's special ones first; the same for all presets."""
    lists = (SHAPES, PLURALS.values(), COLOURS, TEXTURES, SIZES, BACKGROUNDS, PREDICATES, NUMBERS)
    text = " ".join((*_templates(), *(word for words in lists for word in words), "a an"))
    words = re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", text).lower())
    return [*SPECIAL_TOKENS, *sorted(set(words) | set("0123456789.,!?:;'-()"))]
