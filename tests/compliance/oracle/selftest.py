"""Tests the suite: two native runs must be equal, and a broker with falsified answers must differ."""

import collections
import contextlib

from . import judge as judging
from .brokered import BrokeredSocketModule
from .wire import Answer

VALUES, NOTHING = "values", "nothing"
_TRUE = ("handle", "attachment", "descriptors", "ancdata", "data")


class TamperingSession:
    """Forwards calls and falsifies their results, except handles, so that scenarios can continue."""

    def __init__(self, session, what):
        self._session = session
        self._what = what
        self.carries_descriptors = session.carries_descriptors
        self.calls = 1

    def call(self, method, params, parts=None):
        """A call with a wrong result, or with an exception in place of the right result or exception."""
        try:
            answer = self._session.call(method, params, parts)
        except Exception as error:
            raise LookupError("tampered") from error
        if self._what == NOTHING:
            if answer.value is None:
                raise LookupError("tampered")
            return answer
        attachments = [bytes(byte ^ 0xFF for byte in part) or b"?" for part in answer.attachments]
        return Answer(_wrong(answer.value), attachments, answer.descriptors)

    def end(self):
        """Closes the real session."""
        return self._session.end()


def _wrong(value, key=None):
    if key in _TRUE:
        return value
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return "AAAA" + value if key == "base64" else value + "?"
    if isinstance(value, list):
        return [_wrong(item) for item in value]
    if isinstance(value, dict):
        return {name: _wrong(item, name) for name, item in value.items()}
    return 1.5


def run(chosen, daemon, offers, show):
    """Runs both tests on these scenarios and returns the counts; `equal` means that the suite works."""
    counts = collections.Counter()
    _twice_native(chosen, offers, counts, show)
    if daemon is not None:
        _tampered(chosen, daemon, offers, counts)
        daemon.stop()
    return counts


def _twice_native(chosen, offers, counts, show):
    court = judging.Judge(None, offers, {}, judging.native_again)
    for found in chosen:
        verdict = court.judge(found)
        counts[verdict.word] += 1
        if show:
            print(verdict.name, *verdict.native, sep="\n    ")
        if verdict.word == "different":
            print(f"different: {found.name} is not the same twice\n{verdict.text}", flush=True)
    court.close()


def _tampered(chosen, daemon, offers, counts):
    """A scenario must detect wrong values, or if it records none, failures of calls without a result."""
    def tampering(what):
        @contextlib.contextmanager
        def make(_side):
            session = TamperingSession(daemon.session(), what)
            yield BrokeredSocketModule(session)
            session.end()
        return judging.Judge(daemon, offers, {}, make)

    judging.DEADLINE = 2.0
    courts = [tampering(VALUES), tampering(NOTHING)]
    for found in chosen:
        words = [courts[0].judge(found).word]
        if words == ["equal"]:
            words.append(courts[1].judge(found).word)
        if words[-1] == "equal":
            counts["different"] += 1
            print(f"different: {found.name} does not notice wrong answers", flush=True)
        else:
            counts["skipped" if words[-1] == "skipped" else "equal"] += 1
    for court in courts:
        court.close()
