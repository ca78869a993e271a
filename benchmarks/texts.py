"""Texts as people tell them to an assistant, the same for the same seed.

A search engine is only measured fairly on texts whose words differ: beside
ordinary words, each text carries names, numbers and identifiers of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final


def _split(listed: str) -> list[str]:
    return [part for line in listed.split(",") if (part := line.strip())]


_ROLES: Final = _split(
    """
    accountant, aunt, baker, brother, carpenter, client, colleague, cousin, dentist, designer,
    doctor, editor, electrician, flatmate, gardener, intern, landlord, lawyer, manager, mentor,
    neighbour, nurse, physiotherapist, plumber, professor, recruiter, reviewer, sister, supplier,
    teacher, tutor, vet
    """
)
_ACTIONS: Final = _split(
    """
    asked for a refund of, borrowed, broke, cancelled, compared prices for, forgot,
    found a cheaper, gave away, insured, is allergic to, lent me, lost, moved, ordered, painted,
    photographed, prefers, promised to return, recommended, rejected, repaired, replaced,
    returned, reviewed, sent me pictures of, sketched, sold, stopped using, tested,
    translated the manual of, tuned, wrote about
    """
)
_ADJECTIVES: Final = _split(
    """
    ancient, battered, blue, borrowed, brass, ceramic, cheap, cracked, crimson, double, electric,
    embroidered, folding, frozen, green, handmade, heavy, inflatable, leaking, linen, lopsided,
    magnetic, narrow, noisy, oversized, portable, quiet, rusty, second-hand, silver, spare,
    striped, tiny, waterproof, wooden, woollen, yellow
    """
)
_THINGS: Final = _split(
    """
    accordion, alarm clock, aquarium, backpack, barometer, bicycle, blanket, bookshelf, camera,
    canoe, cello, chessboard, coffee grinder, compass, curtains, deployment script, dictionary,
    drum kit, espresso machine, fountain pen, greenhouse, guitar, hammock, harmonica, headphones,
    invoice, jigsaw puzzle, kayak, keyboard, ladder, lantern, lawnmower, loom, mattress,
    microscope, migration, mirror, motorbike, notebook, parser, passport, piano, printer,
    projector, radiator, recipe, router, saddle, sailing boat, scanner, sewing machine,
    skateboard, spreadsheet, surfboard, telescope, tent, test suite, toaster, trombone,
    typewriter, umbrella, vacuum cleaner, violin, wallet, wardrobe, wheelchair
    """
)
_PLACES: Final = _split(
    """
    at the allotment, at the airport, at the bakery, behind the garage, by the canal,
    in the attic, in the basement, in the break room, in the cloakroom, in the harbour,
    in the library, in the reading room, in the server room, near the cathedral,
    near the stadium, next to the lift, on the balcony, on the ferry, on the night train,
    on the rooftop, outside the clinic, under the stairs, at the climbing gym,
    at the community hall, at the flea market, at the riding school
    """
)
_REASONS: Final = _split(
    """
    because the old one gave up, because the deadline moved forward again,
    after a long argument about money, before the guests arrive for the anniversary,
    since the insurance pays only half, although nobody had asked for it,
    while the kitchen was being rebuilt, so that the children can use it in summer,
    in spite of the bad reviews, as a surprise for the retirement party,
    until the new contract has been signed, unless the weather turns before the weekend,
    because the doctor advised against anything heavier, after reading three books about it,
    when the power failed during the rehearsal, even though shipping takes six weeks
    """
)
_ASIDES: Final = (
    "It cost {n} euros and came with a warranty of two years.",
    "The reference on the receipt is {code}.",
    "The next appointment is on {day} {month} at {hour}:30.",
    "Ask {other} about it, who keeps the key and the papers.",
    "That was the third time this year, and the mood was accordingly.",
    "Please remind me {n} days before it runs out.",
    "The error in the log was {code}, and restarting did not help.",
    "We agreed to split the bill with {other} from {town}.",
    "The colour has to match the sofa in the house in {town}.",
    "I would rather not talk about this with {other} again.",
    "Delivery goes to {town}, third floor, the bell says {other}.",
    "My first attempt took {n} minutes, the second barely {hour}.",
)
_MONTHS: Final = _split(
    """
    January, February, March, April, May, June, July, August, September, October, November,
    December
    """
)
_ONSETS: Final = _split(
    """
    b, br, d, f, g, gr, h, k, kl, l, m, n, p, r, s, st, t, tr, v, w, z
    """
)
_VOWELS: Final = ("a", "e", "i", "o", "u", "ai", "ei", "ou")
_CODAS: Final = ("", "", "l", "m", "n", "nd", "r", "rk", "s", "sch", "t", "x")

MIN_WORDS: Final = 15
MAX_WORDS: Final = 60


def name(rng: random.Random) -> str:
    """Return an invented proper name of two or three syllables."""
    syllables = (
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        for _ in range(rng.choice((2, 2, 3)))
    )
    return "".join(syllables).capitalize()


def memory(rng: random.Random) -> str:
    """Return a few sentences about one thing, of 15 to 60 words."""
    target_words = rng.randint(MIN_WORDS + 5, MAX_WORDS - 12)
    text = (
        f"{name(rng)}, my {rng.choice(_ROLES)}, {rng.choice(_ACTIONS)} the "
        f"{rng.choice(_ADJECTIVES)} {rng.choice(_THINGS)} {rng.choice(_PLACES)} "
        f"{rng.choice(_REASONS)}."
    )
    while len(text.split()) < target_words:
        text += " " + rng.choice(_ASIDES).format(
            n=rng.randint(2, 900),
            hour=rng.randint(8, 19),
            day=rng.randint(1, 28),
            month=rng.choice(_MONTHS),
            code=f"{rng.choice('ABCDEFGHKLMNPRST')}{rng.randint(10, 99)}-{rng.randint(1000, 9999)}",
            other=name(rng),
            town=name(rng),
        )
    return text


def query(rng: random.Random) -> str:
    """Return a question as one would ask it about such texts."""
    thing = f"{rng.choice(_ADJECTIVES)} {rng.choice(_THINGS)}"
    return rng.choice(
        (
            f"What happened to the {thing} {rng.choice(_PLACES)}?",
            f"Who of us {rng.choice(_ACTIONS)} a {thing}, and when was it?",
            f"Where did my {rng.choice(_ROLES)} leave the {thing}?",
            f"Has anything been said about a {thing} in {rng.choice(_MONTHS)}?",
            f"Which {rng.choice(_ROLES)} knows {name(rng)} and owns a {thing}?",
        )
    )


def distinct(make: Callable[[], str], count: int) -> list[str]:
    """Return `count` texts of `make`, none of them twice."""
    made: dict[str, None] = {}
    while len(made) < count:
        made[make()] = None
    return list(made)
