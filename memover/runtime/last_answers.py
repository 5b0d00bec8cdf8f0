"""The last answer of each call, for functions that prefer it to a load when the store cannot be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.model import Source
from memover.runtime.loading import Loading
from memover.runtime.recent import Recent

if TYPE_CHECKING:
    from memover.engine.answers import Outcome, Reading
    from memover.engine.call import CachedCall
    from memover.engine.tokens import Witness
    from memover.model import Key

__all__ = ["LastAnswers"]


class LastAnswers(Loading):
    """Keeps last answers, where `on_store_error="stale"` and another process may write to the store."""

    witness: Witness

    def __init__(self, codec: Any, kept: bool, limit: int) -> None:
        super().__init__(codec)
        self.forgotten = 0
        """How often last answers were dropped: an answer read before that is not kept after it."""
        self.last_answers: Recent[bytes, Reading] | None = Recent(limit) if kept else None

    def keep_answer(self, key: Key, reading: Reading, forgotten: int) -> None:
        """Keeps an answer, unless last answers were dropped since `forgotten` was read, before the answer was."""
        answers = self.last_answers
        if answers is None or forgotten != self.forgotten:
            return
        answers.put(key.entry, reading)
        if forgotten != self.forgotten:
            answers.pop(key.entry, None)

    def forget(self, entry: bytes | None = None) -> None:
        """Drops the last answer for one entry, or all."""
        if self.last_answers is not None:
            self.forgotten += 1
            if entry is None:
                self.last_answers.clear()
            else:
                self.last_answers.pop(entry, None)

    def opened(self, key: Key, reading: Reading, source: Source) -> Outcome | None:
        forgotten = self.forgotten
        outcome = super().opened(key, reading, source)
        if self.last_answers is not None and outcome is not None and source is Source.FRESH:
            self.keep_answer(key, reading, forgotten)
        return outcome

    def last_answer(self, call: CachedCall) -> Outcome | None:
        """The last answer of this process, unless an invalidation that it has made or seen is newer."""
        reading = None if self.last_answers is None else self.last_answers.get(call.key.entry)
        if reading is None or reading.header is None:
            return None
        last, marks = self.witness.last, reading.header.marks
        if reading.header.generation != last(call.key.names[0]):
            return None
        if any(last(name) not in (None, token) for name, token in marks) or call.owing([name for name, _ in marks]):
            return None
        return super().opened(call.key, reading, Source.STALE_IF_ERROR)
