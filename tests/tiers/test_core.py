"""Core memory through the façade: bounded blocks, exact edits, nothing overwritten."""

from datetime import UTC, datetime

import pytest
from fakes import HashEmbedder, memory_of
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcp_memory.settings import load_settings
from mcp_memory.tiers.core import DEFAULT_LIMIT_TOKENS, MAX_BLOCKS, MAX_DESCRIPTION_CHARS
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import InvalidInput, MatchFault, NotFound, OverLimit, ReadOnly
from mcp_memory.values.snapshot import read_core
from mcp_memory.values.text import escape


def values(memory, conversation="main"):
    return {block.label: block.value for block in memory.core.all(conversation)}


def rows(memory, columns="label, version, value"):
    return memory._engine.store.database.read(
        f"SELECT {columns} FROM blocks ORDER BY agent, conversation, label, version"
    )


def over_limit(memory):
    """Give a text of one token more than a block takes, and a word of one token."""
    word = " tea"
    text = "tea" + word * DEFAULT_LIMIT_TOKENS
    assert memory.count_tokens(text) == DEFAULT_LIMIT_TOKENS + 1
    return text, word


def test_every_agent_has_a_persona_a_human_and_a_working_block(memory):
    assert list(values(memory).items()) == [("persona", ""), ("human", ""), ("working", "")]
    assert [block.scope for block in memory.core.all()] == ["agent", "agent", "conversation"]
    assert rows(memory) == []


def test_what_is_appended_is_a_new_line_and_counted_in_tokens(memory):
    memory.core.append("human", "Name: Ana")
    block = memory.core.append("human", "Lives in Porto")
    assert block.value == "Name: Ana\nLives in Porto"
    assert block.tokens == memory.count_tokens(block.value)
    assert memory.core.get("human") == block
    assert block.limit == DEFAULT_LIMIT_TOKENS


def test_an_edit_over_the_limit_changes_nothing_and_says_by_how_much(memory):
    text, word = over_limit(memory)
    for edit in (
        lambda: memory.core.append("human", text),
        lambda: memory.core.rethink("human", text),
    ):
        with pytest.raises(OverLimit) as fault:
            edit()
        assert (fault.value.used, fault.value.limit) == (
            DEFAULT_LIMIT_TOKENS + 1,
            DEFAULT_LIMIT_TOKENS,
        )
        assert fault.value.field == "human"
    assert rows(memory) == []
    full = memory.core.rethink("human", text.removesuffix(word))
    assert full.tokens == full.limit
    with pytest.raises(OverLimit) as fault:
        memory.core.replace(
            "human", "tea tea tea tea" + word * (full.limit - 4), "tea" + word * 2002
        )
    assert fault.value.used - fault.value.limit == 3
    assert memory.core.get("human") == full


@pytest.mark.parametrize("content", ["", "  \n", "a\x00b", "\ud800"])
def test_a_text_that_cannot_be_kept_is_not_appended(memory, content):
    with pytest.raises(InvalidInput) as fault:
        memory.core.append("human", content)
    assert fault.value.field == "content"
    assert rows(memory) == []


def test_an_unknown_block_is_not_there_and_not_made(memory):
    for call in (
        lambda: memory.core.get("recipes"),
        lambda: memory.core.append("recipes", "soup"),
        lambda: memory.core.replace("recipes", "a", "b"),
    ):
        with pytest.raises(NotFound) as fault:
            call()
        assert fault.value.key == "recipes"
    assert "recipes" not in values(memory)


def test_a_read_only_block_is_edited_by_its_owner_alone(memory):
    memory.core.define("rules", "Answer in French.", description="House rules.", read_only=True)
    for edit in (
        lambda: memory.core.append("rules", "Or not."),
        lambda: memory.core.replace("rules", "French", "German"),
        lambda: memory.core.rethink("rules", "No rules."),
    ):
        with pytest.raises(ReadOnly) as fault:
            edit()
        assert fault.value.label == "rules"
    assert values(memory)["rules"] == "Answer in French."
    memory.core.define("rules", "Answer in German.")
    block = memory.core.get("rules")
    assert (block.value, block.read_only, block.description) == (
        "Answer in German.",
        True,
        "House rules.",
    )
    memory.core.define("rules", "Answer as you like.", read_only=False)
    assert memory.core.append("rules", "Briefly.").version == 4


def test_the_owner_sets_the_limit_of_a_block(memory):
    memory.core.define("notes", "", description="Notes.", limit=3)
    with pytest.raises(OverLimit) as fault:
        memory.core.append("notes", "one two three four")
    assert fault.value.limit == 3
    with pytest.raises(OverLimit):
        memory.core.define("notes", "one two three four")
    assert memory.core.define("notes", "one two three four", limit=4).tokens == 4


def test_the_owner_may_define_a_block_that_a_conversation_has_edited(memory):
    memory.core.append("working", "Plan the trip.")
    memory.core.define("working", "Plan the party.")
    assert memory.core.get("working").value == "Plan the party."


def test_the_one_place_of_a_text_is_replaced(memory):
    memory.core.rethink("human", "Likes tea.\nLives in Porto.")
    block = memory.core.replace("human", "Porto", "Lisbon")
    assert block.value == "Likes tea.\nLives in Lisbon."


def test_a_text_over_several_lines_can_be_replaced(memory):
    memory.core.rethink("human", "one\ntwo\nthree")
    assert memory.core.replace("human", "one\ntwo", "1\n2").value == "1\n2\nthree"


@pytest.mark.parametrize(
    ("value", "old", "lines"),
    [
        ("tea\ncoffee\ntea and tea", "tea", (1, 3, 3)),
        ("a\nb", "c", ()),
        ("aaa", "aa", (1, 1)),
        ("x\ny\nx\ny", "x\ny", (1, 3)),
        ("Tea", "tea", ()),
        ("", "tea", ()),
    ],
)
def test_replacing_text_that_is_not_there_once_tells_the_lines(memory, value, old, lines):
    memory.core.rethink("human", value)
    before = memory.core.get("human")
    with pytest.raises(MatchFault) as fault:
        memory.core.replace("human", old, "something else")
    assert fault.value.lines == lines
    assert fault.value.field == "old_content"
    assert memory.core.get("human") == before


ALIKE = {
    "escaped as it is shown": ("a < b & c\nx", "a &lt; b &amp; c", "new\nx"),
    "an escape that is in the block": ("a &lt; b\nx", "a &amp;lt; b", "new\nx"),
    "a quote as it is shown": ('She said "yes".', "She said &quot;yes&quot;.", "new"),
    "a composed letter": ("Cafe\u0301 in Porto", "Café", "new in Porto"),
    "a decomposed letter": ("Café in Porto", "Cafe\u0301", "new in Porto"),
    "marks in another order": ("a\u0323\u0302 b", "\u1ead", "new b"),
    "a decomposed syllable": ("\u1112\u1161\u11ab b", "\ud55c", "new b"),
    "a line break for two characters": ("one\r\ntwo\r\nthree", "one\ntwo", "new\r\nthree"),
    "two characters for a line break": ("one\ntwo\nthree", "one\r\ntwo", "new\nthree"),
    "a separator of lines": ("one\u2028two", "one\ntwo", "new"),
    "straight quotes": ("It\u2019s \u201cfine\u201d.", 'It\'s "fine"', "new."),
    "curly quotes": ('It\'s "fine".', "It\u2019s \u201cfine\u201d", "new."),
    "another dash": ("2019\u20132021: Porto", "2019-2021", "new: Porto"),
    "an ellipsis": ("and so on\u2026 and", "so on...", "and new and"),
    "a tab": ("key:\tvalue\nx", "key: value", "new\nx"),
    "a blank that does not break": ("10\u00a0km\nx", "10 km", "new\nx"),
    "several blanks": ("key:    value\nx", "key: value", "new\nx"),
    "blanks at the ends of lines": ("  one  \n  two  \nx", "one\ntwo", "  new  \nx"),
    "outer blanks": ("Lives in Porto.", "  Porto.  ", "Lives in new"),
    "an outer line break": ("one\r\ntwo", "one\n", "newtwo"),
    "something invisible": ("soft\u00adware\nx", "software", "new\nx"),
}


@pytest.mark.parametrize(("value", "old", "left"), ALIKE.values(), ids=ALIKE)
def test_the_one_place_that_is_like_a_text_is_replaced(memory, value, old, left):
    """What copying changes is no reason to refuse; the rest of the block stays to the letter."""
    memory.core.rethink("human", value)
    assert memory.core.replace("human", old, "new").value == left


def test_a_place_to_the_letter_comes_before_those_that_are_like_it(memory):
    memory.core.rethink("human", "It\u2019s tea\nIt's tea")
    assert memory.core.replace("human", "It's", "That's").value == "It\u2019s tea\nThat's tea"


def test_a_new_text_is_stored_to_the_letter(memory):
    memory.core.rethink("human", "a < b")
    assert memory.core.replace("human", "a &lt; b", " x &lt; y\t").value == " x &lt; y\t"


UNLIKE = {
    "another case": ("Porto", "porto"),
    "a letter without its accent": ("Café", "Cafe"),
    "a letter without its decomposed accent": ("caf\u0113\u0301s", "caf\u0113s"),
    "half of a syllable": ("\ud55c", "\u1112\u1161"),
    "words without their blank": ("tea time", "teatime"),
    "lines in one": ("one\ntwo", "one two"),
    "another figure": ("10\u00b2", "102"),
    "nothing but blanks": ("tea", "   \n"),
    "a book": ("tea", "tea " * 1_000_000),
}


@pytest.mark.parametrize(("value", "old"), UNLIKE.values(), ids=UNLIKE)
def test_what_only_resembles_a_text_is_not_replaced(memory, value, old):
    memory.core.rethink("human", value)
    with pytest.raises(MatchFault) as fault:
        memory.core.replace("human", old, "new")
    assert fault.value.lines == ()
    assert values(memory)["human"] == value


def test_several_places_that_are_like_a_text_are_refused_with_their_lines(memory):
    memory.core.rethink("human", "It\u2019s tea\nno\nIt\u2018s tea")
    with pytest.raises(MatchFault) as fault:
        memory.core.replace("human", "It's tea", "new")
    assert fault.value.lines == (1, 3)


@pytest.mark.parametrize(
    ("value", "old", "near"),
    [
        ("Name: Ana\nLives in Porto since 2019\nTea", "Lives in Lisbon since 2019", "Porto"),
        ("She has a dog. She lives in Porto. She likes tea.", "She lived in Porto.", "She lives"),
        ("a < b\nc", "a &lt; d", "a < b"),
    ],
)
def test_a_refusal_shows_the_nearest_text_of_the_block(memory, value, old, near):
    memory.core.rethink("human", value)
    with pytest.raises(MatchFault) as fault:
        memory.core.replace("human", old, "new")
    assert near in fault.value.hint
    assert old not in str(fault.value)
    shown = fault.value.hint.partition(" is: ")[2]
    assert shown in value


def test_a_refusal_shows_nothing_where_nothing_is_near(memory):
    memory.core.rethink("human", "Likes tea")
    with pytest.raises(MatchFault) as fault:
        memory.core.replace("human", "zebra crossing 42", "new")
    assert "Likes" not in str(fault.value)


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    st.text("ab \t\n\r'\u2019\u2013-e\u0301é\u2026.&<lt;\u00a0", min_size=1, max_size=30), st.data()
)
def test_a_copy_of_the_view_finds_the_same_place(core_memory, value, data):
    """What the view shows of a part is replaced in that place, or in none if there are several."""
    core_memory.core.rethink("human", value)
    value = core_memory.core.get("human").value
    start = data.draw(st.integers(0, max(len(value) - 1, 0)))
    end = start + data.draw(st.integers(1, 12))
    part = value[start:end]
    if not part.strip():
        return
    try:
        replaced = core_memory.core.replace("human", escape(part), "NEW").value
    except MatchFault:
        return
    # Whatever was replaced, all around it is to the letter.
    before, _, after = replaced.partition("NEW")
    assert value.startswith(before)
    assert value.endswith(after)


@pytest.mark.parametrize(
    ("old", "new"), [("", "x"), ("\x00", "x"), ("tea", "\x00"), ("\ud800", "x")]
)
def test_a_replacement_that_cannot_be_made_is_refused(memory, old, new):
    memory.core.rethink("human", "tea")
    with pytest.raises(InvalidInput):
        memory.core.replace("human", old, new)
    assert values(memory)["human"] == "tea"


@pytest.mark.parametrize(
    ("value", "old", "left"),
    [
        ("one\ntwo\nthree", "two", "one\nthree"),
        ("one\ntwo\nthree", "one", "two\nthree"),
        ("one\ntwo\nthree", "three", "one\ntwo"),
        ("one\ntwo\nthree", "one\ntwo", "three"),
        ("one\ntwo\nthree", "two\n", "one\nthree"),
        ("one", "one", ""),
        ("one two\nthree", "one ", "two\nthree"),
        ("one two\nthree", " two", "one\nthree"),
        ("one\n\nthree two", "two", "one\n\nthree "),
    ],
)
def test_an_empty_new_text_deletes_and_a_whole_line_leaves_none_behind(memory, value, old, left):
    memory.core.rethink("human", value)
    assert memory.core.replace("human", old, "").value == left


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["tea", "milk", "a b", "咖啡", ""]), max_size=6), st.data())
def test_a_replacement_is_that_of_a_plain_string(core_memory, lines, data):
    core_memory.core.rethink("human", "\n".join(lines))
    value = core_memory.core.get("human").value
    start = data.draw(st.integers(0, max(len(value) - 1, 0)))
    old = value[start : start + data.draw(st.integers(1, 6))]
    places = sum(value.startswith(old, at) for at in range(len(value)))
    if old and places == 1:
        replaced = core_memory.core.replace("human", old, "NEW").value
        assert replaced == value.replace(old, "NEW").strip("\n")
    elif old:
        with pytest.raises(MatchFault):
            core_memory.core.replace("human", old, "NEW")


@pytest.fixture(scope="module")
def core_memory(tmp_path_factory, cache_dir):
    settings = load_settings(
        db=tmp_path_factory.mktemp("core") / "memory.duckdb",
        cache_dir=cache_dir,
        offline=True,
        embedding_model="fake/hash",
    )
    memory = memory_of(Engine(settings, embedder=HashEmbedder()), "default")
    yield memory
    memory.close()


def test_a_block_is_rewritten_as_a_whole(memory):
    memory.core.append("human", "Name: Ana")
    before = memory.core.get("human").description
    assert memory.core.rethink("human", "\nName: Anna\n\n").value == "Name: Anna"
    assert memory.core.get("human").description == before
    assert memory.core.rethink("human", "", "Who it is.").description == "Who it is."
    assert memory.core.get("human").value == ""


def test_a_new_block_needs_a_description(memory):
    with pytest.raises(InvalidInput) as fault:
        memory.core.rethink("recipes", "soup")
    assert fault.value.field == "description"
    block = memory.core.rethink("recipes", "soup", " What she \n cooks. ")
    assert (block.version, block.scope, block.description) == (1, "agent", "What she cooks.")
    assert list(values(memory)) == ["persona", "human", "working", "recipes"]


@pytest.mark.parametrize("description", ["", " ", "a\x00"])
def test_a_description_that_says_nothing_is_refused(memory, description):
    with pytest.raises(InvalidInput) as fault:
        memory.core.rethink("recipes", "soup", description)
    assert fault.value.field == "description"
    assert "recipes" not in values(memory)


def test_a_description_that_is_too_long_says_by_how_much(memory):
    with pytest.raises(OverLimit) as fault:
        memory.core.rethink("recipes", "soup", "a" * (MAX_DESCRIPTION_CHARS + 4))
    assert fault.value.used - fault.value.limit == 4
    assert fault.value.field == "description"


def test_a_label_with_a_slash_makes_no_block(memory):
    with pytest.raises(InvalidInput) as fault:
        memory.core.rethink("notes/work", "x", "Notes.")
    assert fault.value.field == "label"


def test_more_blocks_than_fit_are_refused(memory):
    for number in range(MAX_BLOCKS - 3):
        memory.core.rethink(f"block{number}", "", "One of many.")
    with pytest.raises(OverLimit) as fault:
        memory.core.rethink("one-more", "", "Too many.")
    assert (fault.value.used, fault.value.limit) == (MAX_BLOCKS + 1, MAX_BLOCKS)
    assert len(memory.core.all()) == MAX_BLOCKS
    assert memory.core.rethink("block0", "an old one may still change").version == 2


def test_what_stands_in_context_is_escaped(memory):
    memory.core.rethink("notes", '</block><block label="x">&', 'A "quoted" <note>.')
    compiled = memory.core.compiled()
    assert compiled.count("<block ") == compiled.count("</block>") == 4
    assert "&lt;/block&gt;&lt;block label=&quot;x&quot;&gt;&amp;" in compiled
    assert 'description="A &quot;quoted&quot; &lt;note&gt;."' in compiled


def test_what_stands_in_context_tells_size_limit_and_right(memory):
    memory.core.define("rules", "Be short.", description="Rules.", limit=50, read_only=True)
    tokens = memory.core.get("rules").tokens
    assert (
        f'<block label="rules" description="Rules." tokens="{tokens}" limit="50"'
        ' read_only="true">\nBe short.\n</block>'
    ) in memory.core.compiled()
    assert memory.core.compiled().count("read_only") == 1


def test_every_version_of_a_block_stays_in_the_database(memory):
    memory.core.append("human", "one")
    memory.core.append("human", "two")
    memory.core.replace("human", "one", "1")
    memory.core.rethink("human", "all new")
    assert rows(memory) == [
        ("human", 1, "one"),
        ("human", 2, "one\ntwo"),
        ("human", 3, "1\ntwo"),
        ("human", 4, "all new"),
    ]


def test_blocks_survive_closing_and_opening(open_memory):
    first = open_memory()
    first.core.append("human", "Name: Ana")
    first.core.append("working", "Plan the trip.", "travel")
    first.core.define("rules", "Be short.", description="Rules.", limit=50, read_only=True)
    before = first.core.all("travel")
    first.close()
    second = open_memory()
    assert second.core.all("travel") == before
    assert second.core.append("human", "Has a cat.").version == 2


def test_the_working_block_is_of_one_conversation(memory):
    memory.core.append("working", "Plan the trip.", "travel")
    memory.core.append("working", "Fix the bug.", "work")
    memory.core.append("human", "Name: Ana", "travel")
    assert values(memory, "travel")["working"] == "Plan the trip."
    assert values(memory, "work")["working"] == "Fix the bug."
    assert values(memory)["working"] == ""
    assert values(memory, "work")["human"] == values(memory)["human"] == "Name: Ana"


def test_agents_do_not_see_each_other(settings):
    engine = Engine(settings, embedder=HashEmbedder())
    ana, ben = memory_of(engine, "ana"), memory_of(engine, "ben")
    ana.core.append("human", "Name: Ana")
    ana.core.rethink("recipes", "soup", "What she cooks.")
    ana.core.append("working", "Plan the trip.")
    ben.core.append("human", "Name: Ben")
    assert values(ana) == {
        "persona": "",
        "human": "Name: Ana",
        "working": "Plan the trip.",
        "recipes": "soup",
    }
    assert values(ben) == {"persona": "", "human": "Name: Ben", "working": ""}
    assert [change.after for change in ben.core.finish_rethinking().changes] == ["Name: Ben"]
    engine.close()


def test_finishing_without_a_rewrite_tells_what_changed_since_the_last_time(memory):
    memory.core.append("human", "Name: Ana")
    done = memory.core.finish_rethinking()
    assert done.consolidation.began_at is None
    assert [(c.label, c.before, c.after) for c in done.changes] == [("human", None, "Name: Ana")]
    memory.core.append("human", "Lives in Porto")
    memory.core.append("human", "Has a cat")
    again = memory.core.finish_rethinking()
    assert again.consolidation.began_at == done.consolidation.finished_at
    assert [(c.label, c.before, c.after) for c in again.changes] == [
        ("human", "Name: Ana", "Name: Ana\nLives in Porto\nHas a cat"),
    ]
    assert memory.core.finish_rethinking().changes == ()


def test_a_block_that_is_again_what_it_was_has_not_changed(memory):
    memory.core.append("human", "Name: Ana")
    memory.core.finish_rethinking()
    memory.core.append("human", "A mistake")
    memory.core.replace("human", "A mistake", "")
    assert memory.core.finish_rethinking().changes == ()


def test_finishing_is_an_event_that_names_the_blocks(memory):
    memory.core.append("human", "Name: Ana")
    memory.core.finish_rethinking()
    newest = memory.events(1)[0]
    assert (newest.kind, newest.data["changed"]) == ("rethought", ["human"])
    assert newest.created_at <= datetime.now(UTC)


def test_every_change_tells_listeners_and_writes_the_copy(memory, settings):
    told: list[frozenset[str]] = []
    memory.listen(told.append)
    memory.core.append("human", "Name: Ana", "travel")
    assert {topic for topics in told for topic in topics} == {"core/human"}
    assert read_core(settings.db, "default") == memory.core.compiled()
    with pytest.raises(NotFound):
        memory.core.append("nowhere", "x")
    assert len(told) == 1


def test_opening_writes_the_copy_of_what_is_in_the_database(open_memory, settings):
    first = open_memory()
    first.core.append("human", "Name: Ana")
    first.close()
    folder = settings.db.with_name(f"{settings.db.name}.core")
    for copy in folder.iterdir():
        copy.unlink()
    second = open_memory()
    assert read_core(settings.db, "default") == second.core.compiled()
    assert "Name: Ana" in second.core.compiled()


@pytest.mark.parametrize("conversation", ["", " ", "a\nb", "a" * 129, "\x00"])
def test_a_conversation_that_has_no_proper_name_is_refused(memory, conversation):
    with pytest.raises(InvalidInput) as fault:
        memory.core.append("working", "x", conversation)
    assert fault.value.field == "conversation"
    with pytest.raises(InvalidInput):
        memory.core.all(conversation)
