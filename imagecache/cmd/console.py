# SPDX-License-Identifier: Apache-2.0
"""Progress on stderr: a line for each step, and bars."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from imagecache import events
from imagecache.cmd.columns import human_size
from imagecache.cmd.errors import explain
from imagecache.events import Event, Name
from imagecache.text import one_line

if TYPE_CHECKING:
    from tqdm import tqdm

# A bar for a shorter time would only flicker.
_BAR_DELAY = 0.2   # seconds

_WORDS: dict[str, Callable[[Event], str]] = {
    Name.MISS: lambda e: f"{e.facts['source']} is not in the cache",
    Name.DOWNLOAD: lambda e: f"{_bytes(e.facts['total'])} from {e.subject}",
    Name.RETRY: lambda e: f"{e.facts['reason']}; going on after"
                          f" {_bytes(e.facts['offset'])}",
    Name.VERIFIED: lambda e: f"{_bytes(e.facts['size'])},"
                             f" {e.facts['digest'][:20]}...",
    Name.VALIDATED: lambda e: f"{e.facts['format']},"
                              f" {_bytes(e.facts['virtual_size'])}",
    Name.CONVERT: lambda e: e.subject,
    Name.GROWN: lambda e: f"{e.subject}, {_bytes(e.facts['size'])}",
    Name.POOL_NEARLY_FULL: lambda e: f"{e.subject}, data:"
                                     f" {e.facts['data']} %, metadata:"
                                     f" {e.facts['metadata']} %",
}


class Console:
    """An observer that shows steps as lines, and their progress as bars.

    :param steps: write a line for each step
    :param bars: draw them, if ``stream`` is a terminal
    """

    def __init__(self, stream: TextIO, *, steps: bool, bars: bool) -> None:
        self._stream = stream
        self._steps = steps
        self._bars = bars and stream.isatty()
        self._start = time.monotonic()
        self._running: tuple[str, str] | None = None
        self._bar: tqdm[Any] | None = None

    def __call__(self, event: Event) -> None:
        if event.name in events.PROGRESS:
            self._progress(event)
            return
        self.close()
        if event.name in events.TROUBLE:
            self.line(f"imagecache: warning: {event.name}: {_words(event)}")
        elif self._steps:
            self._step(event)

    def line(self, text: str) -> None:
        """Write a line, above the bar if one is drawn."""
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    def close(self) -> None:
        """End the bar, and keep its last state on the terminal."""
        if self._bar is not None:
            self._bar.close()
        self._bar = self._running = None

    def _step(self, event: Event) -> None:
        elapsed = time.monotonic() - self._start
        self.line(f"{elapsed:7.3f} s  {event.name:<9}  {_words(event)}")

    def _progress(self, event: Event) -> None:
        if self._running != (event.name, event.subject):
            self.close()
            self._running = event.name, event.subject
            if self._steps:
                self._step(event)
            if self._bars:
                self._bar = _new_bar(event, self._stream)
        if self._bar is not None:
            self._bar.update(event.facts["done"] - self._bar.n)


class ConsoleHandler(logging.Handler):
    """Writes log records to the console.

    It omits the records of the events: the console is an observer already.
    """

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self._console = console
        self.setFormatter(_OneLine())
        self.addFilter(lambda record: record.name != events.__name__)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self._console.close()   # the error must be the last line
        self._console.line(self.format(record))


class _OneLine(logging.Formatter):

    def formatMessage(self, record: logging.LogRecord) -> str:
        # cliff logs the errors that end a command as they are.
        said = explain(record.msg) if isinstance(record.msg, Exception) \
            else record.message
        return f"imagecache: {record.levelname.lower()}: {said}"


def _new_bar(event: Event, stream: TextIO) -> tqdm[Any]:
    from tqdm import tqdm  # 20 ms, only for commands that draw a bar
    return tqdm(desc=f"{event.name:<8}", initial=event.facts["done"],
                total=event.facts["total"], unit="iB", unit_scale=True,
                unit_divisor=1024, file=stream, dynamic_ncols=True,
                delay=_BAR_DELAY)


def _words(event: Event) -> str:
    if event.name in _WORDS:
        return one_line(_WORDS[event.name](event))
    return one_line(event.subject + "".join(
        f", {name}: {value}" for name, value in event.facts.items()))


def _bytes(size: int | None) -> str:
    return "an unknown number of bytes" if size is None else human_size(size)
