"""A network between a client and a broker that can be cut, swallowed, or made slow."""

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

HOST = "127.0.0.1"
_CHUNK_BYTES = 65_536
_PATIENCE_SECONDS = 10.0
_HEAD_BYTES = 6
_KIND_BYTES = 2
END_TXN = 26
"""Kafka's number for the request that commits or aborts a transaction."""
_T = TypeVar("_T")


@dataclass(slots=True)
class Weather:
    """How the network is just now."""

    is_cut: bool = False
    """Connections end, and no new one is made."""
    is_swallowed: bool = False
    """Connections stand, and nothing arrives: what a firewall does that drops packets."""
    is_one_way: bool = False
    """What clients ask arrives, and no answer does."""
    delay_seconds: float = 0.0
    """How much later every piece arrives, each way."""
    bytes_per_second: float = 0.0
    """How much a connection carries, each way; 0 is as much as it can."""


class Requests:
    """Finds out of what kinds the requests are that a client sends on one connection."""

    def __init__(self) -> None:
        self._head = b""
        self._rest_bytes = 0

    def kinds(self, piece: bytes) -> list[int]:
        """Of those that begin in `piece`, which is what comes next."""
        found, place = [], 0
        while place < len(piece):
            passed = min(self._rest_bytes, len(piece) - place)
            self._rest_bytes -= passed
            place += passed
            head = piece[place : place + _HEAD_BYTES - len(self._head)]
            self._head += head
            place += len(head)
            if len(self._head) == _HEAD_BYTES:
                size, kind = struct.unpack(">ih", self._head)
                self._head, self._rest_bytes = b"", size - _KIND_BYTES
                found.append(kind)
        return found


class Network:
    """Listens on `port` and passes everything on to `target_port`. Changes hold for connections that stand, too."""

    def __init__(self) -> None:
        self.weather = Weather()
        self.target_port = 0
        self._loop = asyncio.new_event_loop()
        self._clear, self._answers = asyncio.Event(), asyncio.Event()
        self._clear.set()
        self._answers.set()
        self._ambush: tuple[int, str] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, HOST, 0))

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """End every connection and refuse new ones."""
        self.weather.is_cut = True
        self._do(self._drop())

    def swallow(self) -> None:
        """Let nothing through, and tell nobody."""
        self.weather.is_swallowed = True
        self._loop.call_soon_threadsafe(self._clear.clear)

    def swallow_at(self, kind: int, what: str) -> None:
        """From the next request of this kind on, swallow all as from the `request` on, or what answers it: `answer`."""
        self._ambush = (kind, what)

    def slow_down(self, delay_seconds: float, bytes_per_second: float = 0.0) -> None:
        """Have every piece arrive later, and the rest wait for it."""
        self.weather = Weather(delay_seconds=delay_seconds, bytes_per_second=bytes_per_second)

    def mend(self) -> None:
        """All is well again; what was swallowed is lost with its connections, as after a reset."""
        self._ambush = None
        was_swallowed, self.weather = self.weather.is_swallowed or self.weather.is_one_way, Weather()
        if was_swallowed:
            self._do(self._drop())
        for each in (self._clear, self._answers):
            self._loop.call_soon_threadsafe(each.set)

    def close(self) -> None:
        """End it."""
        self._clear_and_stop()
        self._thread.join(_PATIENCE_SECONDS)
        self._loop.close()

    def _clear_and_stop(self) -> None:
        async def end() -> None:
            self._server.close()
            await self._drop()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _do(self, work: Coroutine[object, object, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_SECONDS)

    async def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.weather.is_cut:
                return
            await self._clear.wait()
            there, back = await asyncio.open_connection(HOST, self.target_port)
            self._writers.add(back)
            try:
                requests = Requests()
                await asyncio.gather(
                    self._pass_on(reader, back, lambda piece: self._request(requests, piece)),
                    self._pass_on(there, writer, lambda _: self._answers),
                )
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # the broker is not there, or this network is closed: the client hears that its connection ends
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    def _request(self, requests: Requests, piece: bytes) -> asyncio.Event:
        """What a piece of what clients ask has to wait for."""
        begun = requests.kinds(piece)
        if self._ambush is not None and self._ambush[0] in begun:
            (_, what), self._ambush = self._ambush, None
            if what == "answer":
                self._answers.clear()
                self.weather.is_one_way = True
            else:
                self._clear.clear()
                self.weather.is_swallowed = True
        return self._clear

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        gate: Callable[[bytes], asyncio.Event],
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_CHUNK_BYTES):
                way = gate(piece)
                weather = self.weather
                pace = len(piece) / weather.bytes_per_second if weather.bytes_per_second else 0.0
                if weather.delay_seconds or pace:
                    has_passed = asyncio.Event()
                    asyncio.get_running_loop().call_later(weather.delay_seconds + pace, has_passed.set)
                    await has_passed.wait()
                await self._clear.wait()
                await way.wait()
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()


@contextmanager
def network() -> Iterator[Network]:
    """A network that is well, to a `target_port` that is yet to be set."""
    made = Network()
    try:
        yield made
    finally:
        made.close()
