"""What the near-duplicate distance of each kind names.

Every pair is a stored text and a later one: the same said in other
words, the same with one value changed, or something else of the same sort. The
table shows which of them are named at the model's own distance and at that of the
kind (docs/kinds.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from rich.table import Table

from benchmarks import harness
from benchmarks.client import Clients
from benchmarks.harness import out
from benchmarks.model import load_embedder
from mcp_memory.models.embedding import Embedder
from mcp_memory.values.kinds import DEFAULTS
from mcp_memory.values.records import Kind

Relation = Literal["same", "changed", "other"]
LIMIT_SECONDS: Final = 3_600.0
RELATIONS: Final[tuple[Relation, ...]] = ("same", "changed", "other")


@dataclass(frozen=True, slots=True)
class Group:
    """A stored text, and later texts by their relation to it."""

    kept: str
    same: tuple[str, ...]
    changed: tuple[str, ...]
    other: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts of a kind, and the relation of the later to the stored one."""

    kind: Kind
    relation: Relation
    kept: str
    later: str


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of the pairs of one kind and relation."""

    language: str
    kind: Kind
    relation: Relation
    pairs: int
    lowest: float
    highest: float
    named_at_model: int
    kind_at: float
    named_at_kind: int


ENGLISH: Final[Mapping[Kind, Sequence[Group]]] = {
    Kind.PREFERENCE: (
        Group(
            "Ana prefers trains to planes.",
            same=("Ana would rather take the train than fly.", "Ana prefers trains over planes."),
            changed=("Ana prefers planes to trains.", "Ana prefers buses to planes."),
            other=(
                "Ana prefers tea to coffee.",
                "Ana wants replies in short sentences.",
                "Ben prefers trains to planes.",
            ),
        ),
        Group(
            "The user wants code examples in Python with type hints.",
            same=("The user likes code samples in typed Python.",),
            changed=("The user wants code examples in Rust.",),
            other=("The user wants answers without bullet points.",),
        ),
    ),
    Kind.FACT: (
        Group(
            "Ben lives in Lisbon with his two cats, Miso and Nori.",
            same=(
                "Ben lives in Lisbon and has two cats, Miso and Nori.",
                "Ben's home is in Lisbon; his cats are called Miso and Nori.",
            ),
            changed=(
                "Ben lives in Porto with his two cats, Miso and Nori.",
                "Ben lives in Lisbon with his three cats, Miso, Nori and Udon.",
            ),
            other=("Ben's sister Carla lives in Madrid and has a dog.",),
        ),
        Group(
            "Maya's birthday is on 14 March 1990.",
            same=("Maya was born on 14 March 1990.",),
            changed=("Maya's birthday is on 24 March 1990.",),
            other=("Maya's wedding is on 2 June 2027.", "Leo's birthday is on 2 June 1988."),
        ),
    ),
    Kind.TECHNICAL: (
        Group(
            "The staging database runs on db-stage.internal, port 5433, PostgreSQL 16.",
            same=("Staging database: host db-stage.internal, port 5433, PostgreSQL 16.",),
            changed=(
                "The staging database runs on db-stage.internal, port 5432, PostgreSQL 16.",
                "The staging database runs on db-stage.internal, port 5433, PostgreSQL 17.",
            ),
            other=("The production database runs on db-main.internal, port 6543, MySQL 8.",),
        ),
        Group(
            "ERR_CONN_4031 means the token has expired; run `heron login` again.",
            same=("If ERR_CONN_4031 comes up the token is expired: log in with `heron login`.",),
            changed=("ERR_CONN_4032 means the token was revoked; ask an admin for a new one.",),
            other=("ERR_DISK_1002 means the volume is full; run `heron gc`.",),
        ),
    ),
    Kind.PROJECT: (
        Group(
            "[2026-03-02] The importer is done; the exporter is next.",
            same=("[2026-03-02] Finished the importer, next comes the exporter.",),
            changed=(
                "[2026-03-09] The exporter is done; the web page is next.",
                "[2026-03-09] The importer is done; the exporter is still open.",
            ),
            other=("[2026-03-09] The review with Carla moved to Friday.",),
        ),
        Group(
            "[2026-02-24] heron's queue will use Redis Streams.",
            same=("[2026-02-24] Decision: Redis Streams for the queue of heron.",),
            changed=("[2026-03-15] heron's queue will use a PostgreSQL table.",),
            other=("[2026-03-15] heron's first release is planned for May.",),
        ),
    ),
    Kind.EPISODE: (
        Group(
            "On 6 February 2026 Pekoe had an ultrasound of the heart at the clinic in Leipzig;"
            " the murmur is mild and he takes a tablet a day.",
            same=(
                "Pekoe's heart was examined by ultrasound in Leipzig on 6 February 2026: a mild"
                " murmur, one tablet daily.",
            ),
            changed=(
                "On 6 May 2026 Pekoe had an ultrasound of the heart at the clinic in Leipzig;"
                " the murmur is worse and he takes two tablets a day.",
            ),
            other=("On 9 February 2026 Pekoe ran away in the park and came back by himself.",),
        ),
        Group(
            "Hanna and Wout spent their summer holiday in Hangzhou with her parents.",
            same=("In summer Hanna and Wout were on holiday at her parents' in Hangzhou.",),
            changed=("Hanna and Wout spent their winter holiday in Ghent with his parents.",),
            other=("Hanna and Wout painted the kitchen of the new flat.",),
        ),
    ),
    Kind.REFLECTION: (
        Group(
            "Ana plans best when she sees the whole week at once; daily lists unsettle her.",
            same=("A view of the whole week helps Ana to plan, while lists by day unsettle her.",),
            changed=("Ana plans best when she sees one day at a time; whole weeks unsettle her.",),
            other=("Ana asks for numbers before she decides on anything expensive.",),
        ),
        Group(
            "The team underestimates migrations by about half, so double their estimates.",
            same=("Migrations take the team about twice as long as estimated: double them.",),
            changed=(
                "The team now estimates migrations well, so take their estimates as they are.",
            ),
            other=("Reviews go faster when the change is split by subject.",),
        ),
    ),
}


CHINESE: Final[Mapping[Kind, Sequence[Group]]] = {
    Kind.PREFERENCE: (
        Group(
            "安娜喜欢坐火车，不喜欢坐飞机。",  # noqa: RUF001  data
            same=("安娜更愿意坐火车而不是飞机。",),
            changed=("安娜喜欢坐飞机，不喜欢坐火车。",),  # noqa: RUF001  data
            other=("用户希望回答简短。", "安娜喜欢喝绿茶，不喜欢喝咖啡。"),  # noqa: RUF001  data
        ),
    ),
    Kind.TECHNICAL: (
        Group(
            "项目的数据库在5433端口上运行。",
            same=("项目数据库使用5433端口。",),
            changed=("项目的数据库在5432端口上运行。",),
            other=("导入程序已经完成，下一步是导出。",),  # noqa: RUF001  data
        ),
    ),
}


def pairs(groups: Mapping[Kind, Sequence[Group]]) -> list[Pair]:
    """Return every text with each of those that come later."""
    return [
        Pair(kind, relation, group.kept, later)
        for kind, some in groups.items()
        for group in some
        for relation in RELATIONS
        for later in getattr(group, relation)
    ]


def cosines(embedder: Embedder, wanted: Sequence[Pair]) -> list[float]:
    """Return the cosine of every pair."""
    kept = embedder.embed_passages([pair.kept for pair in wanted])
    later = embedder.embed_passages([pair.later for pair in wanted])
    return [float(a @ b) for a, b in zip(kept, later, strict=True)]


def named(wanted: Sequence[Pair], **settings: str) -> list[bool]:
    """Return for every pair whether the server names the one at the insert of the other.

    Args:
        wanted: The pairs; nothing else is in the database.
        settings: Settings of the server by their name without prefix, in lower case.
    """
    found: list[bool] = []
    with harness.temporary() as folder, Clients(LIMIT_SECONDS) as clients:
        client = clients.start(harness.server(folder / "memory.duckdb", owner="off", **settings))
        client.initialize()
        client.wait_until_embedded()
        for pair in wanted:
            replies = [
                client.tool("archival_memory_insert", {"content": text, "kind": str(pair.kind)})
                for text in (pair.kept, pair.later)
            ]
            found.append("near_duplicates" in replies[1])
            for reply in replies:
                client.tool("archival_memory_delete", {"id": reply["id"]})
        client.close()
    return found


def measure() -> list[Row]:
    """Return the rows of the table, English first.

    Raises:
        BenchmarkFault: The model is not there.
    """
    embedder = load_embedder()
    rows: list[Row] = []
    with harness.temporary() as folder:
        own = folder / "kinds.toml"
        own.write_text("".join(f"[{kind}]\nduplicate_factor = 1\n" for kind in Kind))
        for language, groups in (("English", ENGLISH), ("Chinese", CHINESE)):
            wanted = pairs(groups)
            measured = zip(
                wanted,
                cosines(embedder, wanted),
                named(wanted, kinds=str(own)),
                named(wanted),
                strict=True,
            )
            rows += _rows(language, embedder, list(measured))
    return rows


def _rows(
    language: str, embedder: Embedder, measured: Sequence[tuple[Pair, float, bool, bool]]
) -> list[Row]:
    rows: list[Row] = []
    for kind in dict.fromkeys(pair.kind for pair, *_ in measured):
        for relation in RELATIONS:
            some = [one for one in measured if (one[0].kind, one[0].relation) == (kind, relation)]
            rows.append(
                Row(
                    language=language,
                    kind=kind,
                    relation=relation,
                    pairs=len(some),
                    lowest=min(one[1] for one in some),
                    highest=max(one[1] for one in some),
                    named_at_model=sum(one[2] for one in some),
                    kind_at=DEFAULTS[kind].near_duplicate_at(embedder.near_duplicate_at),
                    named_at_kind=sum(one[3] for one in some),
                )
            )
    return rows


def show(rows: Sequence[Row]) -> None:
    """Print a line a kind: cosines, and how many are named at the model's and the kind's one."""
    table = Table(title="named at the model's distance, at the kind's, of all")
    table.add_column("kind")
    for heading in ("named from", *RELATIONS):
        table.add_column(heading, justify="right")
    for language, kind in dict.fromkeys((row.language, row.kind) for row in rows):
        some = [row for row in rows if (row.language, row.kind) == (language, kind)]
        table.add_row(
            kind.value if language == "English" else f"{kind.value} ({language})",
            f"{some[0].kind_at:.3f}",
            *(
                f"{row.lowest:.3f}-{row.highest:.3f}\n"
                f"{row.named_at_model}, {row.named_at_kind} of {row.pairs}"
                for row in some
            ),
            end_section=True,
        )
    out.print(table)


def _benchmark(options: argparse.Namespace) -> None:
    rows = measure()
    show(rows)
    harness.finish("duplicates", options, {"rows": rows}, [])


def main() -> int:
    """Run the research; return its exit status."""
    parser = harness.parser("duplicates", __doc__, "python -m research.duplicates")
    return harness.run(partial(_benchmark, parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
