"""Several clients on one core memory: nobody undoes an edit that he has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from fakes import HashEmbedder
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from mcp_memory.agent import AgentMemory, Memories, readers
from mcp_memory.settings import Settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.dates import now
from mcp_memory.values.errors import Conflict, InvalidInput, MatchFault, OverLimit, ReadOnly
from mcp_memory.values.ids import new_id
from mcp_memory.values.records import Block


@pytest.fixture
def memories(settings: Settings) -> Iterator[Memories]:
    opened = Memories(Engine(settings, embedder=HashEmbedder()))
    yield opened
    opened.close()


@pytest.fixture
def memory(memories: Memories) -> AgentMemory:
    return memories.open("default")


@pytest.fixture
def ana(memory: AgentMemory) -> AgentMemory:
    return memory.as_reader("ana")


@pytest.fixture
def ben(memories: Memories) -> AgentMemory:
    """A client of another connection."""
    return memories.open("default").as_reader("ben")


def versions(memory, label="human", conversation="main"):
    return memory.core.get(label, conversation).version


def test_rewriting_a_block_that_another_client_changed_is_refused(memory, ana, ben):
    ben.core.rethink("human", "Lives in Porto")
    with pytest.raises(Conflict) as fault:
        ana.core.rethink("human", "Likes tea")
    assert (fault.value.label, fault.value.value) == ("human", "Lives in Porto")
    assert fault.value.field == "new_memory"
    assert isinstance(fault.value, InvalidInput)
    assert memory.core.get("human").value == "Lives in Porto"
    assert versions(memory) == 1


def test_the_refusal_shows_the_present_value_so_that_a_repeat_passes(memory, ana, ben):
    ben.core.rethink("human", "Lives in Porto")
    with pytest.raises(Conflict):
        ana.core.rethink("human", "Likes tea")
    again = memory.as_reader("ana")
    assert again.core.rethink("human", "Lives in Porto\nLikes tea").version == 2


def test_a_call_made_before_the_refusal_was_shown_is_refused_too(memory, ben):
    memory.as_reader("ana")
    ben.core.rethink("human", "Lives in Porto")
    arrived = memory.tick
    for text in ("Likes tea", "Likes coffee"):
        with pytest.raises(Conflict):
            memory.as_reader("ana", arrived=arrived).core.rethink("human", text)
    assert memory.as_reader("ana").core.rethink("human", "Likes both").value == "Likes both"


def test_the_own_edits_of_a_client_never_stand_in_its_way(memory, ana):
    arrived = memory.tick
    for text in ("one", "two", "three"):
        memory.as_reader("ana", arrived=arrived).core.rethink("human", text)
        memory.as_reader("ana", arrived=arrived).core.append("human", "and more")
    assert memory.core.get("human").value == "three\nand more"


def test_of_many_rewrites_from_one_value_exactly_one_is_taken(memories):
    clients = [memories.open("default").as_reader(name) for name in range(8)]

    def rethink(number: int) -> bool:
        try:
            clients[number].core.rethink("human", f"by {number}")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(rethink, range(8))) == 1


def test_what_a_client_was_shown_it_may_rewrite(memory, ana, ben):
    block = ben.core.rethink("human", "Lives in Porto")
    ana.core.saw(block)
    assert memory.as_reader("ana").core.rethink("human", "Moved to Lisbon").version == 2
    ana.core.show()
    ben.core.show()
    assert ben.core.all()[1].value == "Moved to Lisbon"


def test_a_value_that_was_outdated_when_it_was_shown_was_not_seen(memory, ana, ben):
    outdated = ben.core.rethink("human", "Lives in Porto")
    ben.core.rethink("human", "Lives in Lisbon")
    ana.core.saw(outdated)
    with pytest.raises(Conflict):
        memory.as_reader("ana").core.rethink("human", "Likes tea")


def test_the_very_same_value_again_is_taken_and_makes_no_version(memory, ana, ben):
    ana.core.rethink("human", "Likes tea")
    ben.core.saw(memory.core.get("human"))
    topics: list[frozenset[str]] = []
    memory.listen(topics.append)
    assert ana.core.rethink("human", "Likes tea\n").version == 1
    ben.core.append("human", "Lives in Porto")
    present = memory.core.get("human").value
    topics.clear()
    assert ana.core.rethink("human", present).version == 2
    assert topics == []
    assert memory.as_reader("ana").core.rethink("human", "Likes coffee").version == 3


def test_another_description_for_the_same_value_is_kept(memory, ana, ben):
    ben.core.rethink("notes", "one", "What ben noted.")
    assert ana.core.rethink("notes", "one", "What was noted.").version == 2
    assert memory.core.get("notes").description == "What was noted."


def test_a_block_that_another_client_made_meanwhile_is_not_rewritten(memory, ana, ben):
    ben.core.rethink("notes", "one", "What was noted.")
    with pytest.raises(Conflict) as fault:
        ana.core.rethink("notes", "two", "My notes.")
    assert fault.value.value == "one"


def test_replacing_text_that_another_client_took_away_is_a_conflict(memory, ana, ben):
    ana.core.rethink("human", "Lives in Porto")
    ben.core.replace("human", "Porto", "Lisbon")
    with pytest.raises(Conflict) as fault:
        ana.core.replace("human", "Porto", "Braga")
    assert (fault.value.value, fault.value.field) == ("Lives in Lisbon", "old_content")
    with pytest.raises(MatchFault):
        memory.as_reader("ana").core.replace("human", "Porto", "Braga")
    assert memory.core.get("human").value == "Lives in Lisbon"


def test_replacing_text_that_is_still_there_once_goes_on(memory, ana, ben):
    ana.core.rethink("human", "Lives in Porto")
    ben.core.append("human", "Likes tea")
    assert ana.core.replace("human", "Porto", "Braga").value == "Lives in Braga\nLikes tea"
    ben.core.append("human", "Not in Braga any more")
    with pytest.raises(MatchFault) as fault:
        ana.core.replace("human", "Braga", "Faro")
    assert fault.value.lines == (1, 3)


def test_an_append_goes_on_whatever_others_did_and_is_no_leave_to_rewrite(memory, ana, ben):
    ben.core.rethink("human", "Lives in Porto")
    block = ana.core.append("human", "Likes tea")
    assert block.value == "Lives in Porto\nLikes tea"
    with pytest.raises(Conflict):
        ana.core.rethink("human", "Likes tea")


def test_the_users_own_edit_wins_and_clients_are_held_to_it(memory, ana):
    ana.core.rethink("human", "Likes tea")
    assert memory.core.define("human", "Likes coffee").version == 2
    with pytest.raises(Conflict):
        ana.core.rethink("human", "Likes tea and cake")
    ana.core.rethink("persona", "Kind")
    memory.core.define("persona", "Kind", limit=100)
    assert ana.core.rethink("persona", "Brief").limit == 100


def test_a_refusal_for_another_reason_comes_first_and_shows_nothing(memory, ana, ben):
    block = ben.core.rethink("human", "Likes tea")
    with pytest.raises(OverLimit):
        ana.core.rethink("human", "tea " * 2_001)
    memory.core.define("human", block.value, read_only=True)
    with pytest.raises(ReadOnly):
        ana.core.rethink("human", "Likes coffee")
    memory.core.define("human", block.value, read_only=False)
    with pytest.raises(Conflict):
        memory.as_reader("ana").core.rethink("human", "Likes coffee")


def test_the_working_block_of_another_conversation_is_another_block(memory, ana, ben):
    ben.core.rethink("working", "Plan the trip", conversation="trip")
    assert ana.core.rethink("working", "Write the report").version == 1
    with pytest.raises(Conflict):
        ana.core.rethink("working", "Pack", conversation="trip")


def test_agents_do_not_disturb_each_other(memories, ana):
    memories.open("other").as_reader("ana").core.rethink("human", "Lives in Porto")
    assert ana.core.rethink("human", "Likes tea").version == 1


def test_a_client_that_was_shown_nothing_has_seen_nothing(memory, ben):
    ben.core.rethink("human", "Lives in Porto")
    ben.core.rethink("working", "Pack", conversation="trip")
    late = memory.as_reader("late")
    assert late.core.rethink("persona", "Kind").version == 1
    for label, conversation in (("human", "main"), ("working", "trip")):
        with pytest.raises(Conflict):
            late.core.rethink(label, "Blind", conversation=conversation)


def test_a_client_is_held_to_what_its_handshake_has_shown(memory, ben):
    ben.core.rethink("persona", "Kind")
    shown = memory.core.compiled()
    ben.core.rethink("human", "Lives in Porto")
    ana = memory.as_reader("ana", shown=shown)
    assert ana.core.rethink("persona", "Brief").version == 2
    assert ana.core.rethink("working", "Nobody has touched it").version == 1
    with pytest.raises(Conflict):
        ana.core.rethink("human", "Likes tea")


def test_a_second_handshake_shows_what_has_changed(memory, ana, ben):
    ben.core.rethink("human", "Lives in Porto")
    ana = memory.as_reader("ana", shown=f"Before.\n{memory.core.compiled()}\nAfter.")
    assert ana.core.rethink("human", "Lives in Porto\nLikes tea").version == 2


def test_after_a_take_over_a_client_has_not_seen_what_changed_since_it_connected(
    memories, memory, ben
):
    ben.core.rethink("persona", "Kind")
    ben.core.rethink("working", "Pack", conversation="trip")
    since = now()
    ben.core.rethink("human", "Lives in Porto")
    ben.core.rethink("working", "Pack more", conversation="trip")
    shown = memory.core.compiled()
    ben.core.rethink("rules", "Be brief", "What to keep to.")
    moved = memories.open("default", since=since)
    # The handshake is repeated by what stands between; the client does not see it.
    ana = moved.as_reader("ana", shown=shown)
    assert ana.core.rethink("persona", "Brief").version == 2
    for label, conversation in (("human", "main"), ("working", "trip"), ("rules", "main")):
        with pytest.raises(Conflict):
            ana.core.rethink(label, "Blind", conversation=conversation)


def test_after_a_take_over_a_client_knows_its_own_edits(memories):
    since = now()
    first = memories.open("default", since=since, connection="ana's").as_reader("ana", shown="")
    first.core.rethink("working", "Pack", conversation="trip")
    first.core.rethink("human", "Lives in Porto")
    other = memories.open("default", since=since, connection="ben's").as_reader("ben", shown="")
    other.core.append("human", "Likes tea")
    moved = memories.open("default", since=since, connection="ana's").as_reader("ana", shown="")
    assert moved.core.rethink("working", "Pack more", conversation="trip").version == 2
    with pytest.raises(Conflict):
        moved.core.rethink("human", "Blind")


def test_a_value_shown_in_parts_is_seen_with_the_last_unless_it_changed_between(memory, ana, ben):
    block = ben.core.rethink("human", "0123456789")
    ana.core.saw(block, start=5)
    ana.core.saw(block, end=5)
    with pytest.raises(Conflict):
        memory.as_reader("ana").core.rethink("human", "Too early")
    longer = ben.core.append("human", "more")
    ana.core.saw(longer, end=5)
    longest = ben.core.append("human", "and more")
    ana.core.saw(longest, start=5)
    with pytest.raises(Conflict):
        memory.as_reader("ana").core.rethink("human", "Half of one value, half of another")
    last = ben.core.append("human", "the end")
    ana.core.saw(last, end=5)
    ana.core.saw(last, start=5, end=9)
    ana.core.saw(last, start=9)
    assert memory.as_reader("ana").core.rethink("human", "All of it").value == "All of it"


def test_a_client_that_was_forgotten_is_asked_to_look_again(memory, ana, monkeypatch):
    monkeypatch.setattr(readers, "MAX_READERS", 3)
    ana.core.rethink("human", "Lives in Porto")
    for name in range(2):
        memory.as_reader(name)
    assert memory.as_reader("ana").core.rethink("human", "Lives in Lisbon").version == 2
    for name in range(3):
        memory.as_reader(name)
    with pytest.raises(Conflict):
        memory.as_reader("ana").core.rethink("human", "Lives in Braga")


def test_a_closed_connection_leaves_nothing_behind(memories, ana):
    gone = memories.open("default")
    held = len(memories._readers)
    gone.close()
    assert len(memories._readers) == held - 1
    gone.close()
    assert ana.core.rethink("human", "Likes tea").version == 1


def test_whoever_has_the_memory_without_a_client_is_never_refused(memory, ben):
    ben.core.rethink("human", "Lives in Porto")
    assert memory.core.rethink("human", "Likes tea").version == 2


LABELS = ("human", "persona")
names = st.sampled_from(["ana", "ben", "eva"])
labels = st.sampled_from(LABELS)


@dataclass
class Sent:
    """A rewrite on its way: what it will write, and when it was sent."""

    label: str
    value: str
    arrived: int


@dataclass
class Client:
    """One that rewrites blocks from what it was last shown."""

    memory: AgentMemory
    shown: dict[str, str] = field(default_factory=lambda: dict.fromkeys(LABELS, ""))
    sent: list[Sent] = field(default_factory=list)


class ReadersMachine(RuleBasedStateMachine):
    """Three clients on two connections, each merging into what it was last shown.

    A fact is one line; it leaves a block only by its author's hand or by one who
    replaces what stands there.
    """

    def __init__(self, memories: Memories) -> None:
        super().__init__()
        agent = new_id()
        self.connections = [memories.open(agent), memories.open(agent)]
        one, two = self.connections
        self.clients = {"ana": Client(one), "ben": Client(one), "eva": Client(two)}
        self.count = 0
        for name in self.clients:
            self.call(name)

    def teardown(self) -> None:
        for connection in self.connections:
            connection.close()

    def call(self, name: str, arrived: int | None = None) -> AgentMemory:
        return self.clients[name].memory.as_reader(name, arrived=arrived)

    def fact(self, name: str) -> str:
        self.count += 1
        return f"{name}{self.count}"

    def facts(self, label: str) -> set[str]:
        return set(self.connections[0].core.get(label).value.split())

    def show(self, name: str, block: Block) -> None:
        self.call(name).core.saw(block)
        self.clients[name].shown[block.label] = block.value

    @rule(name=names, label=labels)
    def view(self, name: str, label: str) -> None:
        self.show(name, self.call(name).core.get(label))

    @rule(name=names, label=labels)
    def append(self, name: str, label: str) -> None:
        before = self.facts(label)
        self.show(name, self.call(name).core.append(label, self.fact(name)))
        assert before < self.facts(label)

    @rule(name=names, label=labels)
    def replace(self, name: str, label: str) -> None:
        client, before = self.clients[name], self.facts(label)
        old, _, _ = client.shown[label].partition("\n")
        if not old:
            return
        try:
            block = self.call(name).core.replace(label, f"{old}\n", f"{self.fact(name)}\n")
        except Conflict as fault:
            client.shown[label] = fault.value
        except MatchFault:
            pass
        else:
            self.show(name, block)
            before -= {old}
        assert before <= self.facts(label)

    @rule(name=names, label=labels)
    def send_rewrite(self, name: str, label: str) -> None:
        client = self.clients[name]
        value = f"{client.shown[label]}\n{self.fact(name)}\n"
        client.sent.append(Sent(label, value, client.memory.tick))

    @rule(name=names)
    def receive_rewrite(self, name: str) -> None:
        client = self.clients[name]
        if not client.sent:
            return
        sent = client.sent.pop(0)
        before = self.facts(sent.label)
        try:
            block = self.call(name, sent.arrived).core.rethink(sent.label, sent.value)
        except Conflict as fault:
            client.shown[sent.label] = fault.value
            lost = before ^ set(fault.value.split())
        else:
            self.show(name, block)
            gone = before - self.facts(sent.label)
            lost = {fact for fact in gone if not fact.startswith(name)}
        assert not lost

    @rule(name=names, label=labels)
    def rewrite_after_a_look(self, name: str, label: str) -> None:
        self.view(name, label)
        before = self.facts(label)
        value = f"{self.clients[name].shown[label]}\n{self.fact(name)}\n"
        self.show(name, self.call(name).core.rethink(label, value))
        assert before < self.facts(label)


def test_no_edit_is_ever_lost_to_one_who_had_not_seen_it(memories):
    run_state_machine_as_test(
        lambda: ReadersMachine(memories),  # type: ignore[arg-type]  # a factory does
        settings=hypothesis_settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
