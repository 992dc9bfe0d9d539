# SPDX-License-Identifier: GPL-2.0-or-later
"""What became of one scenario, and of all of them together."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from qemu_model.checkers.finding import Divergence


class Exit(IntEnum):
    """The exit codes of ``hdbss``; scripts rely on them."""

    AGREE = 0
    DIVERGENCE = 1
    USAGE = 2
    INFRASTRUCTURE = 3
    UNSUPPORTED = 4
    BUG = 5
    INTERRUPTED = 130


@dataclass(frozen=True)
class Result:
    """One scenario in one mode: a verdict, or the reason why there is none."""

    scenario: str
    mode: str
    seed: int
    seconds: float
    command: str
    """The command line that repeats it."""
    figures: dict[str, int] = field(default_factory=dict)
    divergences: tuple[Divergence, ...] = ()
    skipped: str | None = None
    """Why the scenario was not run."""
    error: str | None = None
    """What went wrong with the machine or the run."""
    bug: bool = False
    """Whether it was hdbss itself that failed; ``error`` is the traceback."""
    unchecked: dict[str, str] = field(default_factory=dict)
    """Checkers that could not be asked, with the reason."""
    kernel: str = ""
    directory: str = ""
    """Where the run is kept; empty when it was thrown away."""

    @property
    def verdict(self) -> str:
        """``agree``, ``DIVERGE``, ``error``, ``BUG`` (of ours) or ``skipped``."""
        if self.bug:
            return "BUG"
        if self.error is not None:
            return "error"
        if self.skipped is not None:
            return "skipped"
        return "DIVERGE" if self.divergences else "agree"


def exit_code(results: Iterable[Result]) -> Exit:
    """The exit code for all results: a finding outweighs trouble, trouble a skip."""
    verdicts = {result.verdict for result in results}
    if "DIVERGE" in verdicts:
        return Exit.DIVERGENCE
    if "BUG" in verdicts:
        return Exit.BUG
    if "error" in verdicts:
        return Exit.INFRASTRUCTURE
    return Exit.UNSUPPORTED if verdicts == {"skipped"} else Exit.AGREE
