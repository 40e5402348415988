# SPDX-License-Identifier: Apache-2.0
"""The programs and renames by which an agent makes a disk.

strace(1) follows the agent and every program it starts, so the record
does not depend on the code under test.  The record holds each program
with its arguments, and each file that was fetched, renamed, linked or, if it
had a name of its own, removed; names stand for paths:

    write download                              an image arrives
    qemu-img convert ... download output        a program, when it starts
    rm download
    mv output base
    mv base.json.new base.json
    ln disk.new disk
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

from imagecache.tests.functional import scenario_agent

AGENT = pathlib.Path(scenario_agent.__file__)
_CALLS = ("execve,?open,openat,?rename,?renameat,renameat2,?link,linkat,"
          "?unlink,unlinkat")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
# What starts a program in a sandbox is not the program, and what is started
# to try the sandbox is none.
_WRAPPERS = ("bwrap", "python", "setpriv", "true")
# What LVM keeps for itself.
_OTHERS = ("/etc/", "/dev/")


@dataclasses.dataclass(frozen=True)
class Outcome:
    steps: list[str]
    error: tuple[str, str] | None    # its class, and what it says
    events: list[tuple[str, str | None]]    # names, and reasons
    locks: list[str]    # which the agent still held at its end
    log: str


def run(config: pathlib.Path, api: str, instance: str, image: str,
        size: int) -> Outcome:
    """Have an agent make a disk; return its steps."""
    trace = config.with_suffix(".trace")
    # The first process that looks for plugins writes a cache file, which would
    # be in the trace; this file makes stevedore write none.
    noted = config.parent / "cache/python-entrypoints/.disable"
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.touch()
    done = subprocess.run(
        ["strace", "--follow-forks", "--seccomp-bpf", "--quiet=all",
         "--string-limit=4096", "--signal=none", f"--trace={_CALLS}",
         "--output", trace, sys.executable, AGENT, config, api, instance,
         image, str(size)], text=True, capture_output=True, check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(noted.parents[1])})
    if done.returncode:
        raise AssertionError(done.stderr)
    said = json.loads(done.stdout)
    calls = joined(trace.read_text(errors="replace"))
    begin = next(i for i, call in enumerate(calls)
                 if scenario_agent.BEGIN in call)
    key = hashlib.sha1(image.encode()).hexdigest()
    return Outcome(
        [named(step, key, instance)
         for call in calls[begin:] if (step := _step(call))],
        said["error"] and tuple(said["error"]),
        [tuple(event) for event in said["events"]], said["locks"],
        done.stderr)


def named(text: str, key: str, instance: str) -> str:
    """Put names in place of the paths of a base and of a disk."""
    for pattern, name in (
            (r'json:\{[^{]*"size": (\d+).*"filename": "\S*/(\w+)"\}+ \S+',
             r"\1-bytes-of-\2 head"),
            (rf"\S*/\.staged/{key}[^ /]*/(download|output)", r"\1"),
            # Beside its place, under a name of this attempt.
            (r"(/|^)\.([^ /]+)\.\d+\.[0-9a-f]{12}(?=\W|$)", r"\1\2.new"),
            (rf"[^ \"]*/{key}", "base"),
            (rf"[^ \"]*/{instance}/", ""),
            (rf"(/dev/\w+/)?\.{instance}_disk\.[0-9a-f.-]+", "volume.new"),
            (rf"(/dev/\w+/)?{instance}_disk", "volume")):
        text = re.sub(pattern, name, text)
    return text


def joined(trace: str) -> list[str]:
    """Return the calls of all processes, in the order in which they ended."""
    begun: dict[str, str] = {}
    calls: list[str] = []
    for pid, call in re.findall(r"^(\d+) +(.*)$", trace, re.MULTILINE):
        if call.endswith(" <unfinished ...>"):
            begun[pid] = call.removesuffix(" <unfinished ...>")
        else:
            resumed = re.match(r"<\.\.\. \w+ resumed>", call)
            calls.append(begun.pop(pid) + call[resumed.end():] if resumed
                         else call)
    return calls


def _step(call: str) -> str | None:
    """Return a call as a command of a shell; None if it does not count."""
    name, _, rest = call.partition("(")
    words = [ast.literal_eval(f'"{each}"') for each in _STRING.findall(rest)]
    if " = -1 " in call:
        return None
    if name == "execve":
        program = pathlib.Path(words[0]).name
        if program.startswith(_WRAPPERS):
            return None
        return " ".join([program, *_arguments(rest)[1:]])
    if name.startswith("open") and "O_CREAT" in rest \
            and words[0].endswith("/download"):
        return f"write {words[0]}"
    if name.startswith(("rename", "link")) \
            and not words[0].startswith(_OTHERS):
        verb = "mv" if name.startswith("rename") else "ln"
        return f"{verb} {words[0]} {words[1]}"
    if name.startswith("unlink") and words[0].endswith("/download"):
        return f"rm {words[0]}"
    return None


def _arguments(rest: str) -> list[str]:
    """Return the arguments of a program from its execve()."""
    listed = re.match(r'"(?:[^"\\]|\\.)*", \[(.*)\], 0x', rest)
    return [ast.literal_eval(f'"{each}"')
            for each in _STRING.findall(listed[1])]
