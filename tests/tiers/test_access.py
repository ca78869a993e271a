"""Access tokens: created once, stored as hashes, checked against what is committed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mcp_memory.store.duckdb.store import DuckDBStore
from mcp_memory.tiers.access import AccessTokens, read_expiry, read_scope
from mcp_memory.tiers.feed import ChangeFeed
from mcp_memory.values.access import Scope
from mcp_memory.values.dates import now
from mcp_memory.values.errors import AccessDenied, InvalidInput, NotFound

UTC_ZONE = ZoneInfo("UTC")


@pytest.fixture
def store(tmp_path):
    store = DuckDBStore(tmp_path / "memory.duckdb")
    yield store
    store.close()


def tokens_of(store):
    return AccessTokens(store, ChangeFeed(store), now)


@pytest.fixture
def access(store):
    return tokens_of(store)


def test_a_token_is_known_by_its_text_and_only_its_hash_is_stored(access, store):
    token, text = access.create("ana", Scope.WRITE, name="laptop")
    assert text.startswith(f"mcpm_{token.id}_")
    assert access.check(text).agent == "ana"
    secret = text.split("_", 2)[2]
    assert all(
        secret not in str(value) for row in store.database.read("FROM tokens") for value in row
    )


def test_tokens_are_there_when_the_database_is_opened_again(access, store):
    _, kept = access.create("ana", Scope.READ)
    ended, gone = access.create("ana", Scope.WRITE)
    access.revoke(ended.id)
    again = tokens_of(store)
    assert again.check(kept).scope is Scope.READ
    with pytest.raises(AccessDenied) as fault:
        again.check(gone)
    assert fault.value.reason == "revoked"
    assert again.all() == access.all()


@pytest.mark.parametrize("text", ["", "mcpm_", "mcpm__", "mcpm_x_", "Bearer", "é", "\ud83d"])
def test_what_is_no_token_is_unknown(text, access):
    access.create("ana", Scope.WRITE)
    with pytest.raises(AccessDenied) as fault:
        access.check(text)
    assert fault.value.reason == "unknown"


def test_the_secret_of_one_token_does_not_open_another(access):
    one, first = access.create("ana", Scope.WRITE)
    other, _ = access.create("ben", Scope.WRITE)
    with pytest.raises(AccessDenied):
        access.check(first.replace(one.id, other.id))


def test_a_token_is_taken_until_the_moment_it_expires(access):
    end = now() + timedelta(days=1)
    _, text = access.create("ana", Scope.WRITE, expires_at=end)
    assert access.check(text, at=end - timedelta(microseconds=1)).expires_at == end
    with pytest.raises(AccessDenied) as fault:
        access.check(text, at=end)
    assert fault.value.reason == "expired"


def test_a_token_that_would_have_expired_already_is_not_made(access):
    with pytest.raises(InvalidInput) as fault:
        access.create("ana", Scope.WRITE, expires_at=now() - timedelta(seconds=1))
    assert fault.value.field == "expires"
    assert not access.exist()


@pytest.mark.parametrize("agent", ["", " ", "two\nlines", "a" * 1_000])
def test_an_agent_that_cannot_be_taken_gets_no_token(agent, access):
    with pytest.raises(InvalidInput):
        access.create(agent, Scope.WRITE)
    assert not access.exist()


def test_revoking_again_keeps_the_moment_of_the_first_time(access):
    token, _ = access.create("ana", Scope.WRITE)
    first = access.revoke(token.id.upper())
    assert access.revoke(token.id).revoked_at == first.revoked_at
    with pytest.raises(NotFound):
        access.revoke("0000000000")


def test_who_listens_is_told_of_new_and_of_ended_tokens(access):
    told = []

    def listener():
        told.append([token.state(now()) for token in access.all()])

    access.listen(listener)
    token, _ = access.create("ana", Scope.WRITE)
    access.revoke(token.id)
    access.unlisten(listener)
    access.create("ana", Scope.WRITE)
    assert told == [["active"], ["revoked"]]


def test_the_last_use_is_written_down_once_in_ten_minutes(access, store):
    _, text = access.create("ana", Scope.WRITE)
    first = now()

    def noted():
        access.save_uses()
        return tokens_of(store).all()[0].last_used_at

    assert noted() is None
    access.check(text, at=first)
    assert noted() == first
    access.check(text, at=first + timedelta(minutes=9))
    assert noted() == first
    access.check(text, at=first + timedelta(minutes=10))
    assert noted() == first + timedelta(minutes=10)


def test_a_scope_covers_itself_and_those_before_it():
    assert [[a.covers(b) for b in Scope] for a in Scope] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert read_scope(" Admin ") is Scope.ADMIN
    with pytest.raises(InvalidInput):
        read_scope("owner")


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        (" 30D ", timedelta(days=30)),
        ("8w", timedelta(weeks=8)),
    ],
)
def test_an_expiry_can_be_a_duration(text, span):
    before = now()
    assert before + span <= read_expiry(text, zone=UTC_ZONE) <= now() + span


def test_an_expiry_can_be_a_date_through_the_whole_day():
    berlin = ZoneInfo("Europe/Berlin")
    end = read_expiry("2031-01-31", zone=berlin)
    assert end == datetime(2031, 1, 31, 23, tzinfo=UTC)


@pytest.mark.parametrize("text", ["soon", "30", "-3d", "999999w", "2031-02-30", ""])
def test_an_expiry_that_is_neither_is_refused(text):
    with pytest.raises(InvalidInput) as fault:
        read_expiry(text, zone=UTC_ZONE)
    assert fault.value.field == "expires"
