# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import logging
import re
from typing import Any

import fixtures

from imagecache.cmd import console
from imagecache.events import Event
from imagecache.tests import base
from imagecache.tests.command import Terminal

GiB = 1024 ** 3


class ConsoleTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.cmd.console._BAR_DELAY", 0))

    def lines(self, *events: Event, stream: io.StringIO | None = None,
              **options: bool) -> list[str]:
        """Return what a console writes, bars that are drawn over included."""
        stream = stream or io.StringIO()
        listener = console.Console(
            stream, **({"steps": False, "bars": True} | options))
        for event in events:
            listener(event)
        listener.close()
        return re.split(r"[\r\n]+", stream.getvalue().strip("\r\n"))


def event(name: str, subject: str = "image", **facts: Any) -> Event:
    return Event(name, subject, facts)


class TestSteps(ConsoleTestCase):

    def test_a_step_is_a_line_with_the_time_since_the_start(self) -> None:
        [line] = self.lines(
            event("validated", format="qcow2", virtual_size=2 * GiB),
            steps=True)
        self.assertRegex(line, r"^ +[0-9]+\.[0-9]{3} s  validated  qcow2,"
                               r" 2\.0 GiB$")

    def test_every_step_has_words(self) -> None:
        for told, words in (
                (event("hit", "key"), "key"),
                (event("miss", "key", source="/a.raw"),
                 "/a.raw is not in the cache"),
                (event("download", "/a.raw", done=1, total=1024),
                 "1.0 KiB from /a.raw"),
                (event("download", "/a.raw", done=1, total=None),
                 "an unknown number of bytes from /a.raw"),
                (event("verified", size=512, digest="sha256:" + 64 * "a"),
                 "512 bytes, sha256:aaaaaaaaaaaaa..."),
                (event("convert", "/a.raw", done=0, total=1), "/a.raw"),
                (event("committed", "key"), "key"),
                (event("created", "/disk"), "/disk"),
                (event("grown", "/disk", size=GiB), "/disk, 1.0 GiB"),
                (event("news", "/disk", a=1, b=2), "/disk, a: 1, b: 2")):
            with self.subTest(told.name):
                [line] = self.lines(told, steps=True)
                self.assertTrue(line.endswith(f"  {words}"), line)

    def test_progress_is_one_line(self) -> None:
        found = self.lines(*(event("download", done=i, total=9)
                             for i in range(10)), steps=True)
        self.assertEqual(1, len(found))

    def test_steps_are_told_to_those_who_ask(self) -> None:
        self.assertEqual([""], self.lines(event("created")))

    def test_trouble_is_told_to_all(self) -> None:
        trouble = event("retry", reason="it broke", offset=1024)
        for options in ({"steps": True}, {"bars": False}, {}):
            self.assertEqual(
                ["imagecache: warning: retry: it broke; going on after"
                 " 1.0 KiB"], self.lines(trouble, **options))

    def test_a_pool_that_is_nearly_full_is_told_in_per_cent(self) -> None:
        self.assertEqual(
            ["imagecache: warning: pool_nearly_full: vg/pool, data: 80 %,"
             " metadata: 12 %"], self.lines(
                event("pool_nearly_full", "vg/pool", data=80, metadata=12)))


class TestBars(ConsoleTestCase):

    def test_a_terminal_sees_how_far_it_is(self) -> None:
        found = self.lines(
            *(event("download", done=i * GiB, total=4 * GiB)
              for i in range(5)), stream=Terminal())
        self.assertRegex(found[-1], r"^download: 100%\|.*4\.00G/4\.00G")

    def test_each_kind_of_work_has_a_bar(self) -> None:
        found = self.lines(
            event("download", done=1, total=1), event("verified"),
            event("convert", done=1, total=1), stream=Terminal())
        self.assertEqual({"download", "convert"},
                         {line.partition(":")[0].strip() for line in found})

    def test_each_image_has_a_bar(self) -> None:
        stream = Terminal()
        self.lines(event("download", "a", done=1, total=1),
                   event("download", "b", done=1, total=1), stream=stream)
        self.assertEqual(2, stream.getvalue().count("\n"))

    def test_a_total_need_not_be_known(self) -> None:
        found = self.lines(event("convert", done=GiB, total=None),
                           stream=Terminal())
        self.assertRegex(found[-1], "^convert : 1.00GiB")

    def test_a_download_can_start_again(self) -> None:
        found = self.lines(
            event("download", done=3, total=4),
            event("download", done=1, total=4), stream=Terminal())
        self.assertRegex(found[-1], r"^download:  25%\|.* 1\.00/4\.00")

    def test_a_pipe_sees_none(self) -> None:
        self.assertEqual([""], self.lines(event("download", done=1, total=1)))

    def test_quiet_means_none(self) -> None:
        self.assertEqual([""], self.lines(
            event("download", done=1, total=1), stream=Terminal(),
            bars=False))

    def test_a_line_does_not_tear_a_bar(self) -> None:
        stream = Terminal()
        listener = console.Console(stream, steps=False, bars=True)
        listener(event("download", done=1, total=4))
        listener.line("a line")
        listener.close()
        self.assertRegex(stream.getvalue(), r"\r *\ra line\n")

    def test_an_error_has_the_last_word(self) -> None:
        stream = Terminal()
        listener = console.Console(stream, steps=False, bars=True)
        listener(event("download", done=1, total=4))
        console.ConsoleHandler(listener, 0).handle(logging.LogRecord(
            "imagecache", logging.ERROR, "", 0, "no", (), exc_info=None))
        listener.close()
        self.assertTrue(stream.getvalue().endswith(
            "\nimagecache: error: no\n"))

    def test_what_ends_at_once_has_no_bar(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.cmd.console._BAR_DELAY", 3600))
        found = self.lines(event("download", done=1, total=2),
                           event("download", done=2, total=2),
                           stream=Terminal())
        self.assertNotIn("%", "".join(found))


class TestLog(ConsoleTestCase):

    def emitted(self, name: str, *args: Any) -> str:
        stream = io.StringIO()
        handler = console.ConsoleHandler(
            console.Console(stream, steps=False, bars=False), logging.WARNING)
        handler.handle(logging.LogRecord(
            name, logging.WARNING, "", 0, *args, exc_info=None))
        return stream.getvalue()

    def test_a_warning_says_so(self) -> None:
        self.assertEqual("imagecache: warning: 1 of 2\n", self.emitted(
            "imagecache.system.durable", "%s of %s", (1, 2)))

    def test_an_event_is_not_told_twice(self) -> None:
        self.assertEqual("", self.emitted("imagecache.events", "retry",
                                          ()))
