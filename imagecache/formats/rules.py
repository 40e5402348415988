# SPDX-License-Identifier: Apache-2.0
"""A rule that an image must keep, and what is said if it does not.

Rules are data: a table of them is the definition of what is accepted, each
can be tested by itself, and a refusal names the one that was broken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class RuleViolation(Exception):
    """An image breaks a rule: ImageUnacceptable to the caller."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, reason)
        self.rule = rule
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} (rule {self.rule})"


@dataclasses.dataclass(frozen=True)
class Rule(Generic[T]):
    name: str
    says: str                       # of an image that breaks it
    holds: Callable[[T], bool]


def require(rules: Iterable[Rule[T]], image: T) -> None:
    """Check rules in order; later ones may build on those before.

    :raises RuleViolation: of the first that does not hold
    """
    for rule in rules:
        if not rule.holds(image):
            raise RuleViolation(rule.name, rule.says)
