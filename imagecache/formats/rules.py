# SPDX-License-Identifier: Apache-2.0
"""A rule that an image must follow, and the message if it does not.

Rules are data: a table of rules defines which images are accepted, each rule
can be tested by itself, and a refusal names the rule that was broken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class RuleViolation(Exception):
    """An image breaks a rule; the caller receives ImageUnacceptable."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, reason)
        self.rule = rule
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} (rule {self.rule})"


@dataclasses.dataclass(frozen=True)
class Rule(Generic[T]):
    name: str
    says: str                       # the reason, if an image breaks it
    holds: Callable[[T], bool]


def require(rules: Iterable[Rule[T]], image: T) -> None:
    """Check rules in order; a rule may rely on the rules before it.

    :raises RuleViolation: names the first rule that is broken
    """
    for rule in rules:
        if not rule.holds(image):
            raise RuleViolation(rule.name, rule.says)
