# SPDX-License-Identifier: Apache-2.0
"""Who listens to events by default: the log."""

from __future__ import annotations

from oslo_log import log as logging

from imagecache.events import Event

LOG = logging.getLogger(__name__)

_PROGRESS = {"download", "convert"}
_TROUBLE = {"retry", "filesystem kept", "unpreallocated"}


def log(event: Event) -> None:
    """Write down what happened, but not every step of the way."""
    if event.name in _PROGRESS:
        return
    level = logging.WARNING if event.name in _TROUBLE else logging.DEBUG
    facts = "".join(f" {k}={v}" for k, v in event.facts.items())
    LOG.log(level, "%s %s%s", event.name, event.subject, facts)
