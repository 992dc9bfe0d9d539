# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's program: one operation a line, with what is expected of it.

A program is text, so that a run directory explains itself: the agent ignores
what follows ``#``, and the checkers read their expectations there::

    uapi cap=241
    hdbss on order=12 # expect errno=EINVAL
    # reach entries>=600 refusals>=1 levels=3

``expect`` holds for its own line (``ret``, ``errno``, ``exit``, ``esr``...), and
``key=this|that`` permits either; without it an operation has to succeed, and a payload
has to end at its door.
``reach`` says what the trace must show for the run to have had its purpose.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from qemu_model.errors import UsageError

PAGE = 4096
"""Page size of the kernel under test and of its guests, in bytes."""

_REACH = re.compile(r"^([a-z]+)(>=|<=|=)(-?\d+)$")
_MAX_LINES = 100_000


@dataclass(frozen=True)
class Operation:
    """One line of a program.

    ``words`` are the positional arguments, ``args`` the named ones, and
    ``expect`` what the result frame has to say, value by value.
    """

    line: int
    name: str
    words: tuple[str, ...] = ()
    args: dict[str, str] = field(default_factory=dict)
    expect: dict[str, str] = field(default_factory=dict)

    def number(self, key: str, default: int | None = None) -> int:
        """The named argument as a number; UsageError when it is none."""
        text = self.args.get(key)
        if text is None:
            if default is None:
                raise UsageError(f"program line {self.line}: {self.name} needs {key}=")
            return default
        return _number(text, self.line)

    def subject(self) -> int:
        """The first positional argument, the number of a slot or vCPU."""
        if not self.words:
            raise UsageError(f"program line {self.line}: {self.name} needs a number")
        return _number(self.words[0], self.line)


@dataclass(frozen=True)
class Reach:
    """A condition on a whole run: a figure such as ``entries``, a relation, a number."""

    what: str
    relation: str
    number: int

    def holds(self, value: int) -> bool:
        """Whether ``value`` fulfils the condition."""
        match self.relation:
            case ">=":
                return value >= self.number
            case "<=":
                return value <= self.number
        return value == self.number

    def __str__(self) -> str:
        return f"{self.what}{self.relation}{self.number}"


def _number(text: str, line: int) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(f"program line {line}: {text!r} is not a number") from None


class Program:
    """A program under construction, or one that was read back from its text."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.reach: list[Reach] = []
        self._lines: list[str] = []

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    @property
    def text(self) -> str:
        """The program as the agent gets it."""
        return "".join(f"{line}\n" for line in self._lines)

    def add(self, name: str, *words: object, **args: object) -> int:
        """Append an operation and return its line number.

        Argument values are written as they print; ``True`` writes the bare word, ``None``
        and ``False`` nothing.  ``expect`` becomes the expectation.
        """
        expect = args.pop("expect", None)
        parts = [name, *(str(word) for word in words)]
        for key, value in args.items():
            if value is True:
                parts.append(key)
            elif value is not None and value is not False:
                parts.append(f"{key}={value}")
        text = " ".join(parts)
        self._append(f"{text} # expect {expect}" if expect else text)
        return len(self._lines)

    def comment(self, text: str) -> None:
        """Append a line that the agent skips."""
        self._append(f"# {text}")

    def reaches(self, *conditions: str) -> None:
        """Demand of the trace what ``conditions`` say, e.g. ``entries>=600``."""
        self._append(f"# reach {' '.join(conditions)}")

    def _append(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) > _MAX_LINES:
            raise UsageError(f"program: more than {_MAX_LINES} lines")
        code, _, comment = line.partition("#")
        number = len(self._lines)
        keyword, _, rest = comment.strip().partition(" ")
        expect: dict[str, str] = {}
        if keyword == "expect":
            for pair in rest.split():
                key, equals, value = pair.partition("=")
                if not equals:
                    raise UsageError(f"program line {number}: expect {pair!r} is not key=value")
                expect[key] = value
        elif keyword == "reach":
            for condition in rest.split():
                match = _REACH.match(condition)
                if match is None:
                    raise UsageError(f"program line {number}: {condition!r} is no condition")
                self.reach.append(Reach(match[1], match[2], int(match[3])))
        words = code.split()
        if words:
            positional = tuple(word for word in words[1:] if "=" not in word)
            named = dict(word.split("=", 1) for word in words[1:] if "=" in word)
            self.operations.append(Operation(number, words[0], positional, named, expect))


def parse(text: str) -> Program:
    """Read a program back; raises UsageError with the line that is wrong."""
    program = Program()
    for line in text.splitlines():
        program._append(line)
    return program
