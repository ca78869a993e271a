"""What an operator sees of the server: probes, figures, spans; never anybody's memory."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sites import ERAS, call, found, insert, listening, session

pytestmark = pytest.mark.anyio

SECRET = "zanzibar"


async def test_probes_say_whether_it_is_alive_and_ready(servers):
    async with listening(servers) as site:
        await site.token()
        async with site.raw() as http:
            assert (await http.get("/healthz")).json() == {"status": "alive"}
            for _ in range(100):
                ready = await http.get("/readyz")
                if ready.status_code == 200:
                    break
            assert ready.json() == {
                "status": "ready",
                "database": "writable",
                "embedding": "unavailable",
            }
            servers.close()
            gone = await http.get("/readyz")
            assert gone.status_code == 503
            assert gone.json()["database"] == "closed"


async def test_it_is_not_ready_while_the_model_is_being_looked_for(servers):
    async with listening(servers) as site, site.raw() as http:
        servers.memories().engine._state = "downloading"
        waiting = await http.get("/readyz")
        assert waiting.status_code == 503
        assert waiting.json()["embedding"] == "downloading"


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_figures_count_and_name_nobody(transport, servers):
    async with listening(servers, transport=transport) as site:
        token = await site.token(f"{SECRET}-agent", name=f"{SECRET}-name")
        admin = await site.token("boss", "admin")
        async with site.client(token) as client:
            await insert(client, f"{SECRET} in a text")
            await client.call_tool(
                "core_memory_replace",
                {"label": f"{SECRET}-label", "old_content": SECRET, "new_content": "x"},
            )
            await client.call_tool(f"{SECRET}-tool", {})
            assert await found(client, SECRET)
            async with site.raw(admin) as http:
                await http.get(f"/{SECRET}")
                text = (await http.get("/metrics")).text
        assert SECRET not in text
        assert "boss" not in text
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))

        def figure(name: str) -> float:
            return float(lines[name])

        tool = 'mcp_memory_tool_seconds_count{outcome="%s",tool="%s"}'
        assert figure(tool % ("ok", "archival_memory_insert")) == 1
        assert figure(tool % ("refused", "core_memory_replace")) == 1
        assert figure(tool % ("refused", "unknown")) == 1
        assert figure('mcp_memory_request_seconds_count{method="tools/call"}') == 4
        assert figure("mcp_memory_pending_vectors") == 1
        assert figure("mcp_memory_embedding_ready") == 0
        assert (
            figure('mcp_memory_http_requests_total{method="GET",route="other",status="404"}') == 1
        )
        if transport == "sse":
            assert figure('mcp_memory_sessions{transport="sse"}') == 1


async def test_sessions_are_counted_while_they_are_open(servers):
    async with listening(servers) as site, site.raw() as http:

        async def sessions() -> str:
            lines = (await http.get("/metrics")).text.splitlines()
            return next(
                line for line in lines if line.startswith("mcp_memory_sessions{") and "http" in line
            )

        one = await session(http)
        await session(http)
        assert (await sessions()).endswith(" 2.0")
        await http.delete("/mcp", headers={"Mcp-Session-Id": one})
        assert (await sessions()).endswith(" 1.0")


@pytest.fixture(scope="module")
def exporter():
    """Collect the spans of this module; a process has one provider, for good."""
    collected = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(collected))
    trace.set_tracer_provider(provider)
    yield collected
    provider.shutdown()


@pytest.mark.parametrize("mode", ERAS)
async def test_a_call_makes_a_span_without_anything_of_the_memory(mode, exporter, servers):
    exporter.clear()
    async with listening(servers) as site:
        token = await site.token(f"{SECRET}-agent")
        async with site.client(token, mode) as client:
            key = await insert(client, f"{SECRET} in a text")
            assert await found(client, SECRET) == [f"{SECRET} in a text"]
            refused = await client.call_tool(
                "core_memory_replace",
                {"label": "human", "old_content": SECRET, "new_content": SECRET},
            )
            assert refused.is_error
            await client.read_resource(f"memory://archival/{key}")
    spans = [span for span in exporter.get_finished_spans() if span.kind is trace.SpanKind.SERVER]
    inserts = [span for span in spans if span.name == "tools/call archival_memory_insert"]
    assert len(inserts) == 1
    assert dict(inserts[0].attributes)["gen_ai.tool.name"] == "archival_memory_insert"
    for span in spans:
        shown = span.to_json()
        assert SECRET not in shown
        assert key not in shown


async def test_a_refused_call_ends_its_span_as_an_error(exporter, servers):
    exporter.clear()
    async with listening(servers) as site, site.raw() as http:
        headers = {"Mcp-Session-Id": await session(http)}
        await http.post("/mcp", json=call("archival_memory_update", id="nothing"), headers=headers)
    span = next(
        span
        for span in exporter.get_finished_spans()
        if span.name == "tools/call archival_memory_update"
    )
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description is None
