"""The plug-in for pytest, which loads it by its entry point: fixtures with captures, ports and network namespaces.

It loads the rest of the package when a test uses a fixture or the marker.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .broker import Broker
    from .own_namespace import OwnNamespace
    from .packet_capture import Capture, Packet

_PACKETS_SHOWN = 20
"""How many packets of a capture the report of a failed test shows."""
_BYTES_SHOWN = 64
_MARKER = (
    "sockbroker(grants=[...]): skip the test, with the reason, unless the policy of the broker grants these actions, "
    "such as 'capture AF_PACKET SOCK_RAW interface=eth0'"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option and the setting for the URL of the broker."""
    group = parser.getgroup("sockbroker")
    group.addoption("--sockbroker", metavar="URL", help="the broker for the fixtures of sockbroker, such as ssh://lab7")
    parser.addini("sockbroker", "the broker for the fixtures of sockbroker, unless --sockbroker names one", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Adds the marker."""
    config.addinivalue_line("markers", _MARKER)
    config.stash[_STATE] = _State(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Closes the connection."""
    state = config.stash.get(_STATE, None)
    if state is not None:
        state.close()


class _State:
    """The broker of a run of pytest, which is connected when the first test needs it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._broker: Broker | None = None
        self._failure = ""
        self._verdicts: dict[str, str] = {}

    def url(self) -> str:
        """The option, the setting, or the environment; else the default of the package."""
        from .settings import URL_VARIABLE, default_url

        given = self._config.getoption("--sockbroker") or self._config.getini("sockbroker")
        return str(given or os.environ.get(URL_VARIABLE) or default_url())

    def broker(self) -> Broker:
        """The connected broker. If there is none, the test is skipped, or fails if the command line names the broker."""
        if self._broker is None and not self._failure:
            try:
                self._broker = self.connect()
            except OSError as error:
                self._failure = error.strerror or str(error)
        if self._broker is None:
            if self._config.getoption("--sockbroker"):
                pytest.fail(f"--sockbroker: {self._failure}", pytrace=False)
            pytest.skip(self._failure)
        return self._broker

    def connect(self) -> Broker:
        """Another connection with its own session."""
        from . import connect

        return connect(self.url())

    def refusal(self, action: str) -> str:
        """Why the policy denies an action; nothing if it allows it. Raises `ValueError` for a malformed one."""
        if action not in self._verdicts:
            from .errors import ArgumentError

            try:
                verdict = self.broker()._client.call("policy.check", [action])[1].value
            except ArgumentError as error:
                raise error.exception from None
            self._verdicts[action] = "" if verdict["allowed"] else str(verdict.get("message") or verdict["rule"])
        return self._verdicts[action]

    def close(self) -> None:
        if self._broker is not None:
            self._broker.close()


class _Captures:
    """The captures of a test, and where they are kept if it fails."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self.all: list[Capture] = []
        self._attached = 0

    def attach(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Copies the files of captures that have not been attached yet, and adds them to a report."""
        captures, self._attached = self.all[self._attached :], len(self.all)
        if not captures:
            return
        folder = self._folders.mktemp("sockbroker-" + re.sub(r"\W+", "_", item.name)[:40])
        for number, capture in enumerate(captures):
            try:
                capture.stop()
                names = "-".join(one.name for one in capture.interfaces) or "any"
                path = str(folder / f"{number}-{re.sub(r'[^-.@:0-9A-Za-z]+', '_', names)}.pcapng")
                shutil.copyfile(capture.file, path)
            except OSError as error:
                report.sections.append((f"{capture!r}", f"the capture is lost: {error}"))
                continue
            report.sections.append((f"{capture!r} in {path}", _described(capture)))
            item.user_properties.append(("sockbroker_capture", path))


_STATE = pytest.StashKey[_State]()
_CAPTURES = pytest.StashKey[_Captures]()


def _described(capture: Capture) -> str:
    """The counters, and the last packets."""
    stats = capture.stop()
    lines = [f"{stats.captured} packets, {stats.dropped} dropped, {stats.unread} unread"]
    last: deque[Packet] = deque(maxlen=_PACKETS_SHOWN)
    count, failure = 0, ""
    try:
        for packet in capture.packets():
            count += 1
            last.append(packet)
    except (OSError, ValueError) as error:
        failure = f"the rest cannot be read: {error}"
    if count > _PACKETS_SHOWN:
        lines.append(f"... {count - _PACKETS_SHOWN} packets")
    for packet in last:
        after = (packet.time_ns - capture.started_ns) / 1e9
        data = packet.data[:_BYTES_SHOWN].hex(" ")
        lines.append(f"{after:+.6f} s {packet.direction or '-'} {packet.interface} {packet.length} bytes: {data}")
    if failure:
        lines.append(failure)
    return "\n".join(lines)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose marker names an action that the policy denies."""
    for marker in item.iter_markers("sockbroker"):
        if marker.args or set(marker.kwargs) - {"grants"}:
            raise pytest.UsageError(f"the marker sockbroker of {item.nodeid} takes grants=[...] alone")
        state = item.config.stash[_STATE]
        state.broker()
        grants = marker.kwargs.get("grants", ())
        for action in [grants] if isinstance(grants, str) else grants:
            refusal = state.refusal(action)
            if refusal:
                pytest.skip(f"the broker at {state.url()} denies {action!r}: {refusal}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Attaches the captures to the report of a failed test."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    captures = item.stash.get(_CAPTURES, None)
    if report.failed and captures is not None:
        captures.attach(item, report)


@pytest.fixture(scope="session")
def sockbroker(pytestconfig: pytest.Config) -> Broker:
    """The broker, as from sockbroker.connect(). The test is skipped with the reason if there is none."""
    return pytestconfig.stash[_STATE].broker()


@pytest.fixture
def sockbroker_session(pytestconfig: pytest.Config, sockbroker: Broker) -> Iterator[Broker]:
    """Another connection to the broker, whose sockets and captures end with the test."""
    with pytestconfig.stash[_STATE].connect() as broker:
        yield broker


@pytest.fixture
def sockbroker_capture(
    request: pytest.FixtureRequest, sockbroker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Capture]]:
    """A function that starts a capture, with the arguments of sockbroker.capture().

    The capture is live when the function returns, and ends with the test. If the test fails, its report has the last
    packets and the path of the pcapng file.
    """
    captures = request.node.stash[_CAPTURES] = _Captures(tmp_path_factory)

    def start(*arguments: Any, **options: Any) -> Capture:
        capture = sockbroker.capture(*arguments, **options)
        captures.all.append(capture)
        return capture

    yield start
    failure: OSError | None = None
    for capture in captures.all:
        try:
            capture.stop()
        except OSError as error:
            failure = failure or error
    if failure is not None:
        raise failure


class Port:
    """A TCP port that is bound: no other program can get it."""

    def __init__(self, listener: Any) -> None:
        self.listener = listener
        """The listening socket of the broker."""
        self.address: tuple[Any, ...] = listener.getsockname()
        """The address of the listener."""
        self.host: str = self.address[0]
        self.number: int = self.address[1]

    def __index__(self) -> int:
        return self.number

    def __repr__(self) -> str:
        return f"<port {self.number} of {self.host}>"


@pytest.fixture
def sockbroker_port(request: pytest.FixtureRequest, sockbroker: Broker) -> Iterator[Port]:
    """A TCP port at which the broker listens: at 127.0.0.1, or at the address of an indirect parameter.

    The kernel has chosen it, and it stays bound for the whole test. It has the attributes `number`, `host`, `address`,
    and `listener`, which is the listening socket.
    """
    from .errors import Denied

    host = getattr(request, "param", "127.0.0.1")
    module = sockbroker.socket
    family = module.AF_INET6 if ":" in host else module.AF_INET
    try:
        listener = module.create_server((host, 0), family=family)
    except Denied as error:
        pytest.skip(f"the broker at {sockbroker.url} denies a listening socket: {error}")
    with listener:
        yield Port(listener)


@pytest.fixture
def sockbroker_netns(pytestconfig: pytest.Config, sockbroker: Broker) -> Iterator[OwnNamespace]:
    """A network namespace for the test alone, with sockets and captures of the broker, and with programs.

    It needs no privileges. The test is skipped with the reason if the system forbids user namespaces, if the policy
    does not grant `netns = ["owned"]`, or if no descriptor reaches the broker.
    """
    from .own_namespace import OwnNamespace

    state = pytestconfig.stash[_STATE]
    if not sockbroker._client.settings.endpoint.passes_descriptors:
        pytest.skip(
            f"the broker at {state.url()} gets no descriptor of a network namespace: it is behind ssh or a command"
        )
    refusal = state.refusal("create AF_INET SOCK_DGRAM netns=owned")
    if refusal:
        pytest.skip(f"the broker at {state.url()} denies sockets in a network namespace of this user: {refusal}")
    try:
        made = OwnNamespace(sockbroker)
    except OSError as error:
        pytest.skip(str(error))
    with made:
        yield made
