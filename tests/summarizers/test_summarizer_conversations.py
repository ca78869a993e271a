"""What must survive in an extractive summary: hand-made conversations, flushed in parts."""

from datetime import UTC, datetime, timedelta

import pytest

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.summarizers import ExtractiveSummarizer
from mcp_memory.values.records import Message

CHINESE = [
    ("user", "早上好！今天天气不错。"),
    ("user", "我叫林小明，住在上海浦东，在一家叫星海科技的公司做数据库工程师。"),
    ("assistant", "很高兴认识你！有什么可以帮你的吗？"),
    ("user", "我们下周三，也就是3月11日，要把订单系统从MySQL迁移到PostgreSQL 16。"),
    ("assistant", "好的，需要我帮你列一个清单吗？"),
    ("user", "先不用。哈哈，最近加班太多了。"),
    ("assistant", "注意休息。"),
    ("user", "我对花生过敏，团建订餐的时候请记住。"),
    ("assistant", "好的，我记住了。"),
    ("user", "迁移脚本报错：ERR_CONN_4031，连接池超时30秒。"),
    ("assistant", "可以把max_connections改成200再试试。"),
    ("user", "改完以后正常了，原因是连接池太小。"),
    ("assistant", "太好了！"),
    ("user", "另外，迁移时间改到3月18日，因为王总那天才回来。"),
    ("assistant", "明白。"),
    ("user", "回滚方案还没确定，等李娜确认。"),
    ("assistant", "好的，谢谢。"),
]
JAPANESE = [
    ("user", "おはようございます。"),
    ("user", "来週の金曜日、3月13日に大阪へ出張します。"),
    ("assistant", "いいですね。"),
    ("user", "エビのアレルギーがあるので、店を予約するときは気をつけてください。"),
    ("assistant", "了解です。"),
    ("assistant", "障害の原因はERR_TIMEOUT_88で、プロキシの設定を変更して解決しました。"),
    ("assistant", "お疲れさまです。"),
    ("user", "リリースは4月2日に延期になりました。"),
    ("user", "テストの担当者はまだ未定です。"),
]
CODING = [
    ("user", "Hi! Can you look at why the nightly build fails since Tuesday?"),
    ("assistant", "Sure, let me look at the logs."),
    (
        "tool",
        "$ pytest -q\n........F...\nFAILED tests/storage/test_pool.py::test_reconnect"
        " - TimeoutError: pool exhausted after 30 s\n1 failed, 212 passed in 41.20s",
    ),
    ("assistant", "Let me read src/storage/pool.py."),
    (
        "tool",
        "import os\nimport sys\n\nclass Pool:\n    def __init__(self, size=4):\n"
        "        self.size = size\n    def acquire(self):\n        return self.queue.get()",
    ),
    (
        "assistant",
        "I see. The default size is 4 and test_reconnect opens 6 connections. Root cause:"
        " commit 3f9a2c1 lowered the default from 10 to 4.",
    ),
    ("user", "Ah right, that was Marta's change for the small VMs. Don't revert it."),
    ("assistant", "Okay. Then I set size=10 in tests/conftest.py instead."),
    ("tool", "1 file changed, 2 insertions(+)"),
    ("user", "Good. We decided to use the flag POOL_SIZE from now on, default 4, production 32."),
    ("assistant", "Noted. I added POOL_SIZE to settings.py:88 and docs/config.md."),
    ("user", "The deploy is on Thursday 2026-03-12, 14:00 UTC, to eu-west-1. Ticket is OPS-1187."),
    ("assistant", "Great, sounds good!"),
    ("user", "It's not yet clear whether staging needs the flag too, ask Jonas."),
    ("user", "Thanks, that's all for today. Have a nice evening!"),
]


def conversation(said):
    start = datetime(2026, 3, 1, tzinfo=UTC)
    return [
        Message(
            f"{n:010d}",
            "main",
            n,
            role,
            text,
            20,
            start + timedelta(hours=n),
            start + timedelta(hours=n),
        )
        for n, (role, text) in enumerate(said)
    ]


@pytest.fixture(scope="module")
def count(cache_dir):
    return Tokenizer(cache_dir=cache_dir).count


def summarize(count, messages, max_tokens, parts=1):
    """Flush the messages in `parts` flushes and return the last summary."""
    summarizer, parent = ExtractiveSummarizer(count), None
    size = -(-len(messages) // parts)
    for first in range(0, len(messages), size):
        part = messages[first : first + size]
        parent = summarizer.summarize(parent, part, max_tokens=max_tokens)
    return parent


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize(
    ("said", "max_tokens", "wanted", "dropped"),
    [
        (
            CHINESE,
            180,
            ["林小明", "花生过敏", "ERR_CONN_4031", "3月18日", "还没确定"],
            ["注意休息", "太好了", "早上好", "好的，谢谢"],
        ),
        (
            JAPANESE,
            130,
            ["3月13日", "アレルギー", "ERR_TIMEOUT_88", "4月2日", "未定"],
            ["いいですね", "おはよう", "お疲れ"],
        ),
        (
            CODING,
            300,
            [
                "test_reconnect",
                "3f9a2c1",
                "POOL_SIZE",
                "2026-03-12",
                "OPS-1187",
                "tests/conftest.py",
                "Jonas",
            ],
            ["import sys", "sounds good", "nice evening", "def acquire"],
        ),
    ],
    ids=["chinese", "japanese", "coding"],
)
def test_what_matters_survives_and_small_talk_does_not(
    count, said, max_tokens, wanted, dropped, parts
):
    summary = summarize(count, conversation(said), max_tokens, parts)
    assert count(summary) <= max_tokens
    assert [text for text in wanted if text not in summary] == []
    assert [text for text in dropped if text in summary] == []


def test_a_fact_said_once_is_still_hinted_at_after_many_flushes(count):
    said = [("user", "My sister Marta keeps bees in Falkenstein, and her number is 0171-555-83.")]
    topics = ["harbour", "kitchen", "garden", "budget", "holiday", "concert", "train", "dinner"]
    for number in range(400):
        topic = topics[number % len(topics)]
        said.append(("user", f"We talked about the {topic} and planned visit {number} of it."))
    summary = summarize(count, conversation(said), 400, parts=20)
    assert "Falkenstein" in summary
    assert "Marta" in summary


def test_of_a_fact_that_has_changed_the_later_one_stays(count):
    said = [("user", f"The weather in hall {n} was discussed with guest {n}.") for n in range(30)]
    said.insert(3, ("user", "The launch of Atlas is on May 5."))
    said.insert(25, ("user", "The launch of Atlas has been moved to June 9 instead."))
    assert "June 9" in summarize(count, conversation(said), 220, parts=3)
