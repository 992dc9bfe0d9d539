# SPDX-License-Identifier: GPL-2.0-or-later
"""Is the kernel's log free of complaints?"""

import re
from collections.abc import Iterator

from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.run import Run

_COMPLAINTS = re.compile(
    r"WARNING: |BUG: |BUG \S{1,64} \(|kernel BUG at|Oops|Internal error|Kernel panic"
    r"|Unable to handle kernel"
    r"|possible circular locking|possible recursive locking|inconsistent lock state"
    r"|suspicious RCU usage|rcu: INFO: |RCU Stall|rcu_(?:preempt|sched) (?:self-)?detected"
    r"|INFO: task .{0,64} blocked|INFO: lockdep|INFO: trying to register non-static key"
    r"|sleeping function called|scheduling while atomic"
    r"|KASAN: |UBSAN: |KFENCE: |pagealloc: |Poison overwritten|poison overwritten|bad page state"
    r"|Bad page state|Bad page map|list_(?:add|del) corruption|refcount_t: "
    r"|soft lockup|hard LOCKUP|SError|HYP panic|hyp panic"
)
_TIME = re.compile(r"^\[ *\d+\.\d+\] ")
_SHOWN = 120
"""Characters of the first line that the summary has."""
_MOST = 20
"""Complaints that are told: a kernel under test can word them as it likes."""
_WIDTH = 400
"""Characters that are shown of each line."""
_AFTER = 12
"""Lines that are shown after the first one."""


def check(run: Run, history: History) -> list[Divergence]:
    """The first complaint of each wording, up to _MOST."""
    found: dict[str, Divergence] = {}
    for number, match, lines in complaints(run.console):
        if match in found:
            continue
        found[match] = Divergence(
            checker="kernel_log",
            summary=f"the kernel's log complains: {_said(lines[0])}",
            rule="a kernel that works has nothing to say",
            required="no WARN, BUG, Oops, lockdep, RCU, KASAN or poison message",
            seen=f"line {number} of console.log",
            records=tuple(line[:_WIDTH] for line in lines),
        )
        if len(found) == _MOST:
            break
    return list(found.values())


def _said(line: str) -> str:
    """A line of the log without its time."""
    return _TIME.sub("", line)[:_SHOWN]


def complaints(console: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line number, the words that matched, and the lines from there on."""
    lines = [line.rstrip("\r") for line in console.split("\n")]
    for index, line in enumerate(lines):
        match = _COMPLAINTS.search(line)
        if match is not None:
            yield index + 1, match[0].strip(), lines[index : index + _AFTER]
