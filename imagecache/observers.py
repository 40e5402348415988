# SPDX-License-Identifier: Apache-2.0
"""Who listens to events by default: the log."""

from __future__ import annotations

from oslo_log import log as logging

from imagecache.events import Event

LOG = logging.getLogger(__name__)

PROGRESS = {"download", "convert"}   # told again and again, as they go on
TROUBLE = {"retry", "filling", "filesystem kept", "unpreallocated",
           "not copied"}


def log(event: Event) -> None:
    """Write down what happened, but not every step of the way."""
    if event.name in PROGRESS:
        return
    level = logging.WARNING if event.name in TROUBLE else logging.DEBUG
    facts = "".join(f" {k}={v}" for k, v in event.facts.items())
    LOG.log(level, "%s %s%s", event.name, event.subject, facts)
