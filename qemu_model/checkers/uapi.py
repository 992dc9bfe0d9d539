# SPDX-License-Identifier: GPL-2.0-or-later
"""Does every operation return what it has to?"""

from collections.abc import Iterable
from errno import errorcode

from qemu_model.channel import Frame, Result, TextLine
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import PAYLOADS, History, ended_by_kvm
from qemu_model.program import Operation
from qemu_model.run import Run

_BUSY_HOST = ("hrtimer: interrupt took",)


def check(run: Run, history: History) -> list[Divergence]:
    """One divergence for each operation whose result is not the expected one.

    Where the write of an entry was made to fail, KVM_RUN may fail as well, and what waits
    for that payload then waits in vain.
    """
    results = {f.line: f for f in run.observations.frames if isinstance(f, Result)}
    found = []
    for operation in run.program:
        result = results.get(operation.line)
        if result is None:
            found.append(_finding(run, operation, "a result", "none: the agent never got there"))
            break
        if history.faults and ended_by_kvm(result):
            continue
        if history.told > 0 and operation.name == "await" and result.ret < 0:
            continue
        for key, value in expectation(operation).items():
            seen = _seen(result, key)
            if key == "changed" and value != "0" and history.told > 0:
                continue  # a payload that was ended has not stored everything
            if key == "lines" and seen.isdecimal():
                seen = str(int(seen) - noise(run.observations.frames, operation.line))
            if seen not in value.split("|"):
                words = " ".join(f"{name}={text}" for name, text in result.fields.items())
                seen = f"{key} = {seen} (ret = {result.ret}, {words})"
                required = f"{key} = {value.replace('|', ' or ')}"
                found.append(_finding(run, operation, required, seen))
                break
    return found


def expectation(operation: Operation) -> dict[str, str]:
    """What the result of an operation has to say, the program's own words first."""
    if operation.expect:
        expect = dict(operation.expect)
        if "errno" in expect and "0" not in expect["errno"].split("|"):
            expect.setdefault("ret", "-1")
        return expect
    if operation.name not in PAYLOADS:
        return {"errno": "0"}
    # KVM_RUN can also succeed with an exit that makes no sense: ret is -1 then, errno 0.
    if operation.name == "stop" or operation.args.get("loops") == "0":
        return {"errno": "0", "ret": "0"}
    return {"ret": "0", "exit": "door"}


def _seen(result: Result, key: str) -> str:
    match key:
        case "ret":
            return str(result.ret)
        case "errno":
            return errorcode.get(result.errno, str(result.errno))
    return result.fields.get(key, "")


def noise(frames: Iterable[Frame], line: int) -> int:
    """Messages of a ``klog`` that tell of a busy host and not of the kernel."""
    return sum(
        any(words in frame.text for words in _BUSY_HOST)
        for frame in frames
        if isinstance(frame, TextLine) and frame.line == line
    )


def _finding(run: Run, operation: Operation, required: str, seen: str) -> Divergence:
    return Divergence(
        checker="uapi",
        summary=f"line {operation.line}: {run.line(operation.line)}",
        rule="Documentation/virt/kvm/api.rst",
        required=required,
        seen=seen,
    )
