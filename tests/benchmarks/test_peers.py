"""What `peers` counts and says, with a small server that can lose what it stores."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from processes import environment

from benchmarks import BenchmarkFault, peers
from benchmarks.client import Clients, Command
from benchmarks.harness import progress
from benchmarks.metrics import Latency
from benchmarks.peers import Loss, Result, verdicts
from benchmarks.servers import BARE_TOOL, OURS, Peer, bare_server

SERVER = """
import json, pathlib, sys

file, forgetful = pathlib.Path("kept.txt"), sys.argv[1] == "forgetful"
known = file.read_text().splitlines() if file.exists() else []


def answer(name, given):
    if name == "store":
        known.append(given["text"])
        with file.open("w" if forgetful else "a") as out:
            out.write("\\n".join(known if forgetful else known[-1:]) + "\\n")
        return "stored"
    return "; ".join(text for text in file.read_text().splitlines() if text == given["text"])


for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    result = {}
    if asked["method"] == "tools/call":
        text = answer(asked["params"]["name"], asked["params"]["arguments"])
        result = {"content": [{"type": "text", "text": text}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


def peer_of(kind: str, folder: Path) -> Peer:
    script = folder / "server.py"
    script.write_text(SERVER, encoding="utf-8")
    return Peer(
        kind,
        lambda own: Command([sys.executable, "-S", str(script), kind], {}, own),
        lambda text, number: ("store", {"text": text}),
        lambda query: ("search", {"text": query}),
    )


def latency(ms: float) -> Latency:
    return Latency.of([ms / 1_000])


def result(name: str, ms: float, kept: int, answered: int = 9) -> Result:
    return Result(
        name,
        store={10: latency(ms)},
        search={10: latency(ms)},
        paraphrases=answered,
        two_clients=Loss(100, 100, kept),
        parallel=Loss(20, 20, kept),
    )


def test_a_server_that_keeps_all_loses_nothing(tmp_path: Path):
    peer = peer_of("keeps", tmp_path)
    assert peers.two_clients(peer, tmp_path) == Loss(100, 100, 100)
    assert peers.parallel(peer, tmp_path) == Loss(20, 20, 20)


def test_what_is_acknowledged_and_gone_afterwards_is_seen(tmp_path: Path):
    # It reads its file at its start, and writes all that it knows with each store.
    loss = peers.two_clients(peer_of("forgetful", tmp_path), tmp_path)
    assert loss.acknowledged == 100
    assert loss.kept < 100


def test_a_server_that_ends_has_acknowledged_what_it_has_answered(tmp_path: Path):
    peer = peer_of("keeps", tmp_path)
    with Clients(60) as clients:
        client = peers.connect(clients, peer, tmp_path)
        client.stop()
        with pytest.raises(BenchmarkFault, match="has ended"):
            peers.tell(client, peer.search("x"))


def test_servers_are_filled_timed_and_asked(tmp_path: Path):
    every = {"keeps": peer_of("keeps", tmp_path)}
    results = {"keeps": Result("keeps")}
    run = peers.Run(every, results)
    with ExitStack() as stack, Clients(60) as clients, progress() as bar:
        run.open(clients, stack, tmp_path / "data")
        run.fill(20, bar)
        run.time(20, bar)
        run.ask()
    found = results["keeps"]
    assert found.trouble == []
    assert found.store[20].calls == found.search[20].calls == peers.ROUNDS * peers.BLOCK_CALLS
    assert found.paraphrases == 0
    assert (tmp_path / "data" / "keeps" / "load" / "kept.txt").read_text().count("\n") == (
        1 + 20 + len(peers.PARAPHRASES) + peers.ROUNDS * peers.BLOCK_CALLS
    )


def test_a_server_that_cannot_start_is_left_out_with_its_reason(tmp_path: Path):
    broken = Peer(
        "broken",
        lambda own: Command([sys.executable, "-c", "raise SystemExit('no model')"], {}, own),
        lambda text, number: ("store", {}),
        lambda query: ("search", {}),
    )
    results = peers.measure({"broken": broken}, [10], tmp_path)
    assert any("no model" in line for line in results["broken"].trouble)


@pytest.mark.parametrize("text", ["Error: x", "Failed to store", "Note: not stored, it is there"])
def test_a_refusal_in_words_is_no_acknowledgement(text: str):
    with pytest.raises(BenchmarkFault, match="was refused"):
        peers.accepted("store", {"content": [{"type": "text", "text": text}], "isError": False})


def test_ours_leads_where_nobody_is_better():
    lines = verdicts({OURS: result("a", 3, 20), "b": result("b", 3, 20)}, [10])
    assert len(lines) == 5
    assert all(line.endswith(": met") for line in lines)


@pytest.mark.parametrize(
    ("other", "missed"),
    [
        (result("b", 2, 20), ["store at 10", "search at 10"]),
        (result("b", 4, 21), ["kept, two clients", "kept, parallel"]),
        (result("b", 4, 20, answered=10), ["in other words"]),
    ],
)
def test_where_another_is_better_it_is_said(other: Result, missed: list[str]):
    lines = verdicts({OURS: result("a", 3, 20), "b": other}, [10])
    found = [line for line in lines if line.endswith("MISSED")]
    assert len(found) == len(missed)
    assert all(line.startswith(name) for line, name in zip(found, missed, strict=True))


def test_without_others_there_is_no_verdict():
    assert verdicts({OURS: result("a", 3, 20)}, [10])[0].startswith("no verdict")


def test_each_question_in_other_words_shares_no_answer_with_its_fact():
    for fact, answer, question in peers.PARAPHRASES:
        assert answer in fact
        assert not set(answer.lower().split()) & set(question.lower().strip("?").split())


@pytest.mark.slow
def test_the_bare_server_gives_the_reply_it_was_made_with(tmp_path: Path):
    reply = {"content": [{"type": "text", "text": "hello"}], "structuredContent": {"said": "hello"}}
    command = bare_server(tmp_path, reply, environment(tmp_path))
    with Clients(60) as clients:
        client = clients.start(command)
        assert client.initialize()["serverInfo"]["name"] == "bare"
        assert client.tool(BARE_TOOL, {}) == reply["structuredContent"]
        client.close()
