"""Check values of parsed JSON against rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias


class Rule(NamedTuple):
    """What a value must be, and whether its key may be absent.

    `holds` takes any JSON value and returns whether it is accepted; `wanted` ends a message that begins with the key
    and "must be".
    """

    holds: Callable[[Any], bool]
    wanted: str
    optional: bool = False


Rules: TypeAlias = Mapping[str, Rule]

TEXT = Rule(lambda value: isinstance(value, str) and bool(value.strip()), "a text")
FILLED = Rule(lambda value: isinstance(value, dict) and bool(value), "an object with content")


def is_number(value: object) -> bool:
    """Return whether a value is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def exactly(*wanted: object) -> Rule:
    """Return the rule of a value that equals one of those given."""
    return Rule(lambda value: value in wanted, " or ".join(map(repr, wanted)))


def count(of: str) -> Rule:
    """Return the rule of a whole number from 1, of the things named."""
    return Rule(lambda value: is_number(value) and isinstance(value, int) and value > 0, f"a positive number of {of}")


def between(low: float, high: float) -> Rule:
    """Return the rule of a number that lies between two limits and equals neither."""
    # a comparison holds for no NaN, and for integers that are too large to be a float
    return Rule(lambda value: is_number(value) and low < value < high, f"a number between {low:g} and {high:g}")


def several(number: int, rule: Rule) -> Rule:
    """Return the rule of a list of so many values that each keep a rule."""

    def holds(value: object) -> bool:
        return isinstance(value, list) and len(value) == number and all(map(rule.holds, value))

    return Rule(holds, f"{number} {rule.wanted.removeprefix('a ').replace('number', 'numbers')}")


def broken_rule(values: Mapping[str, Any], rules: Rules) -> str | None:
    """Return what is wrong with the first value that breaks its rule, or None; keys that are absent break none."""
    for key, rule in rules.items():
        if key in values and not rule.holds(values[key]):
            return f"{key!r} must be {rule.wanted}"
    return None


def versioned_problem(block: object, versions: Mapping[str, Rules]) -> str | None:
    """Return what is wrong with a block, any JSON value, that names its schema, or None.

    `versions` holds the rules of all keys but "schema", by the schemas that are accepted; no other key is allowed.
    """
    if not isinstance(block, dict):
        return "an object is expected"
    found = block.get("schema", next(iter(versions)))
    if found not in list(versions):
        return f"'schema' must be {' or '.join(map(repr, versions))}"
    rules = versions[found]
    required = {"schema", *(key for key, rule in rules.items() if not rule.optional)}
    if not required <= set(block) <= {"schema", *rules}:
        return f"an object with {', '.join(sorted(required))} is expected"
    return broken_rule(block, rules)
