"""One client's window at work: messages come in, pressure rises, a flush relieves it.

The queue of a conversation is one for all who use it. So its flush goes by the
window that is fullest: the smallest one, usually, of the connections that have used
the conversation and are still open.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Final

from mcp_memory.paging import alerts
from mcp_memory.paging import budget as arithmetic
from mcp_memory.paging.reminder import Reminder
from mcp_memory.paging.state import Arrival, PagingState
from mcp_memory.paging.view import View
from mcp_memory.settings import Settings
from mcp_memory.store.duckdb import Transaction
from mcp_memory.tiers import events
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.queues import Entry
from mcp_memory.values.errors import OverLimit, StorageFault
from mcp_memory.values.records import (
    Author,
    Flush,
    Message,
    Overflow,
    Summary,
    Surface,
)
from mcp_memory.values.text import check_text

logger = logging.getLogger(__name__)

_OLD_HEAD: Final = re.compile(r"Messages 0 to \d+ \(until [^)]*\) have left the window;[^\n]*\n?")


class Pager(View):
    """One client's window on an agent's conversations; called with the engine's lock held."""

    def __init__(
        self,
        engine: Engine,
        agent: str,
        settings: Settings,
        surface: Surface,
        state: PagingState,
    ) -> None:
        super().__init__(engine, agent, settings, surface, state)
        self._reminder = Reminder(engine, agent, settings.rethink_every, state)
        self._offered: dict[str, int] = {}

    def append(
        self,
        conversation: str,
        messages: Sequence[Message],
        context_tokens: int | None = None,
        *,
        coming: bool = False,
    ) -> Arrival:
        """Record messages, and flush if they made the window overflow: one transaction each.

        Args:
            context_tokens: What is in the client's window now, these messages included.
            coming: Whether their vectors are being computed.
        """
        engine, agent, state = self._engine, self._agent, self._state
        self._join(conversation)
        with engine.database.transaction() as tx:
            engine.recall.store(tx, agent, messages, coming=coming)
        engine.recall.stored(agent, messages)
        if context_tokens is not None:
            self._report(conversation, context_tokens)
        level, before = self._budget(conversation).level, state.last_notice
        flush, reminded = None, False
        try:
            flush = self._relieve(conversation)
            reminded = self._reminder.remind(messages)
        except StorageFault as fault:
            # The messages are kept, and that is what was asked for; the next call tries again.
            logger.warning("no flush, warning or reminder: %s", fault)
        return Arrival(
            self._budget(conversation),
            "flush" if flush is not None else level,
            self.alert(conversation),
            flush,
            reminded or state.last_notice > before,
        )

    def alert(self, conversation: str | None = None) -> str | None:
        """Return a notice that this client was not told yet, of a conversation that it uses.

        Args:
            conversation: Whose comes first.
        """
        state = self._state
        if self._looked == state.last_notice:
            return None
        for name in sorted(state.notices, key=lambda name: name != conversation):
            notice = state.notices[name]
            if name not in self._heard or notice.number <= self._heard[name]:
                continue
            self._heard[name] = notice.number
            if notice.in_force or notice.number > self._born:
                return notice.text
        self._looked = state.last_notice
        return None

    def overflow(self, conversation: str) -> Overflow:
        """Return what a flush would evict now, and remember that it was shown."""
        self._join(conversation)
        evicted = self._split(conversation, asked=True).evicted
        if evicted:
            self._offered[conversation] = evicted[-1].index
        return Overflow(
            conversation,
            self._messages_of(conversation, evicted),
            self._queues.summary(self._agent, conversation),
            sum(entry.tokens for entry in evicted),
        )

    def flush(self, conversation: str, summary: str | None) -> Flush:
        """Evict the oldest messages into the summary, as the client asks.

        With its own `summary`, exactly those messages leave that the overflow
        prompt showed last, if it showed any.

        Raises:
            InvalidInput, OverLimit: The summary can't be taken; nothing is evicted.
        """
        self._join(conversation)
        if summary is not None:
            self._check_length(check_text(summary, "summary"))
        offered = self._offered.get(conversation) if summary is not None else None
        parent = self._queues.summary(self._agent, conversation)
        if summary is not None and offered is not None and parent and offered <= parent.last:
            return self._take_late(conversation, parent, summary, offered)
        split = self._split(conversation, asked=True)
        if offered is not None:
            both = (*split.evicted, *split.kept)
            cut = offered + 1 - both[0].index
            split = arithmetic.Eviction(both[:cut], both[cut:])
        flush = self._evict(conversation, split, summary)
        if flush.evicted:
            if summary is not None:
                self._offered.pop(conversation, None)
            self._heard[conversation] = self._state.last_notice
        return flush

    def rewrite(
        self,
        conversation: str,
        content: str,
        author: Author,
        of: str,
        limit: int | None = None,
    ) -> Summary | None:
        """Put another text in the place of the newest summary: same messages, same parent.

        Args:
            of: Which summary was the newest when the text was begun.
            limit: The most tokens it may have; `summary_limit` without.

        Returns:
            The new version; None if `of` is no longer the newest, and nothing was done.

        Raises:
            InvalidInput, OverLimit: The text can't be taken.
        """
        newest = self._queues.summary(self._agent, conversation)
        if newest is None or newest.id != of:
            return None
        self._check_length(check_text(content, "summary"), limit)
        return self._put_in_place(newest, content, author)

    def refresh(self, conversation: str) -> bool:
        """Warn of a pressure that has risen without a message, as by a block that has grown.

        Nothing leaves the window before the next message.

        Returns:
            Whether an event was written.

        Raises:
            StorageFault: It can't be.
        """
        before = self._state.last_notice
        self._tightest(conversation)._warn(conversation)
        return self._state.last_notice > before

    def rethought(self) -> None:
        """Begin to count the user's turns anew."""
        self._state.turns = 0

    def _tightest(self, conversation: str) -> Pager:
        """Return the window in which the conversation is nearest to overflowing."""
        users = self._state.users.get(conversation, ())
        pagers = [view for view in users if isinstance(view, Pager)]
        return max(pagers, key=lambda pager: pager._fullness(conversation), default=self)

    def _relieve(self, conversation: str) -> Flush | None:
        """Flush or warn, if the pressure calls for it: first where it is highest."""
        done: Flush | None = None
        tightest = self._tightest(conversation)
        for pager in dict.fromkeys((tightest, self)):
            if pager._budget(conversation).level == "flush":
                flush = pager._evict(conversation, pager._split(conversation, asked=False), None)
                # The newest messages alone can fill a small window: then nothing can leave.
                if flush.evicted:
                    before = 0 if done is None else done.evicted
                    done = Flush(before + flush.evicted, flush.kept, flush.summary)
        if done is None:
            tightest._warn(conversation)
        return done

    def _warn(self, conversation: str) -> None:
        budget = self._budget(conversation)
        if budget.level == "ok" or self._was_warned(conversation):
            return
        leaving = self._split(conversation, asked=False).evicted
        first = self._messages_of(conversation, leaving[: alerts.MAX_LISTED])
        text = alerts.warning(self._engine.tokenizer, conversation, budget, first, len(leaving))
        data: dict[str, object] = {"pressure": budget.pressure}
        if leaving:
            data |= {"first": leaving[0].index, "last": leaving[-1].index}
        with self._engine.database.transaction() as tx:
            self._engine.events.add(
                tx, self._agent, events.WARNING, text, conversation=conversation, data=data
            )
        self._state.warned[conversation] = True
        self._state.post(conversation, text, in_force=True)

    def _was_warned(self, conversation: str) -> bool:
        warned = self._state.warned.get(conversation)
        if warned is None:
            log = self._engine.events
            at = log.last_at(self._agent, (events.WARNING,), conversation)
            flushed = log.last_at(self._agent, (events.FLUSHED,), conversation)
            warned = at is not None and (flushed is None or at > flushed)
            self._state.warned[conversation] = warned
        return warned

    def _evict(
        self, conversation: str, split: arithmetic.Eviction[Entry], summary: str | None
    ) -> Flush:
        """Let messages leave into a summary; one transaction, and nobody is waited for."""
        engine, agent = self._engine, self._agent
        parent = self._queues.summary(agent, conversation)
        if not split.evicted:
            return Flush(0, len(split.kept), parent)
        author: Author = "client"
        if summary is None:
            author = "extractive"
            evicted = self._messages_of(conversation, split.evicted)
            summary = self._extract("", None if parent is None else _body(parent), evicted)
        written = self._queues.draft(
            agent,
            conversation,
            first=split.evicted[0].index,
            last=split.evicted[-1].index,
            content=summary,
            author=author,
        )
        with engine.database.transaction() as tx:
            self._queues.store(tx, agent, written)
            self._log_flush(tx, written, len(split.evicted))
        self._queues.stored(agent, written)
        flush = Flush(len(split.evicted), len(split.kept), written)
        self._state.warned[conversation] = False
        self._state.post(conversation, alerts.flushed(conversation, flush), in_force=False)
        self._tell_flushed(written)
        return flush

    def _extract(self, head: str, parent: str | None, evicted: Sequence[Message]) -> str:
        """Return `head` and what the summarizer chooses, together within the limit."""
        tokenizer, left = self._engine.tokenizer, self.summary_limit
        if head:
            left -= tokenizer.count(head) + 2
        if left <= 0:
            return head
        try:
            body = self._engine.summarizer.summarize(parent, evicted, max_tokens=left)
        except Exception:
            # Whatever a summarizer does, the window must be relieved.
            logger.exception("the summarizer has failed: the summary before it stands")
            body = parent or ""
        body = tokenizer.clip(body, left)
        return f"{head}\n{body}" if head and body else head or body

    def _take_late(self, conversation: str, parent: Summary, content: str, shown: int) -> Flush:
        """Put a client's text in the place of the summary that was written meanwhile.

        What has left since it was shown to the client follows it in extracts.
        """
        carried, unseen = None, tuple[Message, ...]()
        if shown < parent.first - 1:
            carried = _body(parent)  # Several flushes have gone by: it tells of them all.
        elif shown < parent.last:
            unseen = self._messages(conversation, shown + 1, parent.last + 1)
        text = self._extract(content, carried, unseen) if carried or unseen else content
        written = self._put_in_place(parent, text, "client")
        self._offered.pop(conversation, None)
        return Flush(0, self._queues.queue(self._agent, conversation).count, written)

    def _put_in_place(self, replaced: Summary, content: str, author: Author) -> Summary:
        written = self._queues.redraft(replaced, content, author)
        with self._engine.database.transaction() as tx:
            self._queues.store(tx, self._agent, written)
        self._queues.stored(self._agent, written)
        return written

    def _tell_flushed(self, summary: Summary) -> None:
        if self._engine.on_flushed is None:
            return
        try:
            self._engine.on_flushed(self._agent, summary.conversation, summary, self.summary_limit)
        except Exception:
            # The flush is committed: what others make of it can't undo it.
            logger.exception("a flush was not taken up")

    def _check_length(self, summary: str, limit: int | None = None) -> None:
        tokens, limit = self._engine.tokenizer.count(summary), limit or self.summary_limit
        if tokens > limit:
            raise OverLimit(
                "summary",
                used=tokens,
                limit=limit,
                field="summary",
                hint="Shorten it and call conversation_flush again; nothing was evicted",
            )

    def _log_flush(self, tx: Transaction, summary: Summary, evicted: int) -> None:
        self._engine.events.add(
            tx,
            self._agent,
            events.FLUSHED,
            f"{evicted} messages ({summary.first} to {summary.last}) have left the window of"
            f" conversation {summary.conversation!r}.",
            conversation=summary.conversation,
            data={"evicted": evicted, "summary": summary.id, "author": summary.author},
        )


def _body(summary: Summary) -> str:
    """Return the text of a summary, without the line that earlier versions put before it."""
    head = _OLD_HEAD.match(summary.content)
    return summary.content[head.end() :] if head else summary.content
