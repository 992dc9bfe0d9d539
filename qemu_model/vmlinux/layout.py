# SPDX-License-Identifier: GPL-2.0-or-later
"""C structures of a kernel, out of the DWARF of its vmlinux: where their members lie.

Only one compilation unit is read, the one whose source file is asked for: a whole
vmlinux takes minutes, a unit a fraction of a second.  Nothing is assumed about the order
or the size of members.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from elftools.common.exceptions import DWARFError, ELFError
from elftools.construct import ConstructError
from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE

from qemu_model.errors import Unsupported
from qemu_model.vmlinux.elf import Vmlinux

_WRAPPERS = ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_atomic_type")
_COMPOUND = ("DW_TAG_structure_type", "DW_TAG_union_type")
_DEPTH = 32
"""Types inside types that are followed; real ones stay far below."""
_POINTER = 8
_BROKEN = (
    *(DWARFError, ELFError, ConstructError, LookupError, ValueError, AttributeError),
    *(TypeError, AssertionError, ArithmeticError, RecursionError),
)
"""What pyelftools raises for debug information that is damaged or too new for it."""


class LayoutError(Unsupported):
    """The vmlinux does not say what is asked; the message says what is missing and why."""


@dataclass(frozen=True)
class Member:
    """Where a member lies: ``offset`` from the structure's beginning and ``size``, in bytes.

    ``stride`` is the distance of two elements where the member is an array, else 0.
    """

    offset: int
    size: int
    stride: int = 0


class Structures:
    """The structures that one source file of the kernel knows.

    ``source`` is the end of its path, ``virt/kvm/kvm_main.c``.  Raises LayoutError when
    vmlinux has no debug information, or none for that file.
    """

    def __init__(self, vmlinux: Vmlinux, source: str) -> None:
        self._vmlinux = vmlinux
        self._source = source
        try:
            unit = self._unit()
            self._named, self._enumerations = self._read_types(unit)
        except _BROKEN as error:
            raise self._trouble(f"its debug information cannot be read: {error!r}") from error

    def size(self, structure: str) -> int:
        """Bytes of ``struct structure``; LayoutError when it is not known."""
        die = self._structure(structure)
        try:
            return _number(die, "DW_AT_byte_size")
        except _BROKEN as error:
            raise self._trouble(f"struct {structure} cannot be read: {error!r}") from error

    def member(self, path: str) -> Member:
        """Where ``structure.member.member`` lies, also inside anonymous structs and unions.

        LayoutError when there is no such structure or member.
        """
        structure, *names = path.split(".")
        die, offset = self._structure(structure), 0
        found = Member(0, 0)
        for name in names:
            try:
                place = _find(die, name, 0)
                if place is None:
                    raise self._trouble(f"{path}: there is no member {name}")
                start, die = place
                offset += start
                found = Member(offset, _size(die), _stride(die))
            except _BROKEN as error:
                raise self._trouble(f"{path} cannot be read: {error!r}") from error
        return found

    def offset(self, path: str) -> int:
        """``member(path).offset``."""
        return self.member(path).offset

    def enumerator(self, enumeration: str, name: str) -> int | None:
        """The value of a constant of ``enum enumeration``; None where there is none.

        LayoutError when the debug information cannot be read.
        """
        try:
            for die in self._enumerations.get(enumeration, ()):
                for constant in die.iter_children():
                    if constant.attributes["DW_AT_name"].value == name.encode():
                        return _number(constant, "DW_AT_const_value")
        except _BROKEN as error:
            raise self._trouble(f"enum {enumeration} cannot be read: {error!r}") from error
        return None

    def _trouble(self, why: str) -> LayoutError:
        return LayoutError(f"vmlinux {self._vmlinux.path}: {why}")

    def _structure(self, name: str) -> DIE:
        die = self._named.get(name)
        if die is None:
            raise self._trouble(f"{self._source} knows no struct {name}")
        return die

    def _unit(self) -> CompileUnit:
        elf = self._vmlinux.elf
        if not elf.has_dwarf_info():
            raise self._trouble("it has no debug information; build with CONFIG_DEBUG_INFO")
        wanted = self._source.encode()
        # Offsets inside a linked file need no relocation, which would take long.
        for unit in elf.get_dwarf_info(relocate_dwarf_sections=False).iter_CUs():
            name = unit.get_top_DIE().attributes.get("DW_AT_name")
            if name is not None and (name.value == wanted or name.value.endswith(b"/" + wanted)):
                return unit
        raise self._trouble(f"its debug information has no {self._source}")

    @staticmethod
    def _read_types(unit: CompileUnit) -> tuple[dict[str, DIE], dict[str, list[DIE]]]:
        """Structures and enumerations by name."""
        named: dict[str, DIE] = {}
        enumerations: dict[str, list[DIE]] = {}
        for die in unit.iter_DIE_children(unit.get_top_DIE()):
            name = die.attributes.get("DW_AT_name")
            if name is None or "DW_AT_declaration" in die.attributes:
                continue
            word = name.value.decode("ascii", "replace")
            if die.tag in _COMPOUND:
                named.setdefault(word, die)
            elif die.tag == "DW_TAG_enumeration_type":
                enumerations.setdefault(word, []).append(die)
        return named, enumerations


def _number(die: DIE, attribute: str) -> int:
    value = die.attributes[attribute].value
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{attribute} is {value!r}")
    return value


def _type(die: DIE) -> DIE:
    """The type of a member or an element, behind typedefs and qualifiers."""
    for _ in range(_DEPTH):
        die = die.get_DIE_from_attribute("DW_AT_type")
        if die.tag not in _WRAPPERS:
            return die
    raise ValueError("a type that is its own typedef")


def _find(compound: DIE, name: str, depth: int) -> tuple[int, DIE] | None:
    """Offset and type of a member, looked for in what has no name as well."""
    if compound.tag not in _COMPOUND or depth > _DEPTH:
        return None
    for member in compound.iter_children():
        if member.tag != "DW_TAG_member":
            continue
        start = 0
        if "DW_AT_data_member_location" in member.attributes:  # a union's members have none
            start = _number(member, "DW_AT_data_member_location")
        called = member.attributes.get("DW_AT_name")
        if called is None:
            inner = _find(_type(member), name, depth + 1)
            if inner is not None:
                return start + inner[0], inner[1]
        elif called.value == name.encode():
            return start, _type(member)
    return None


def _counts(array: DIE) -> Iterator[int]:
    for bound in array.iter_children():
        if bound.tag == "DW_TAG_subrange_type":
            if "DW_AT_count" in bound.attributes:
                yield _number(bound, "DW_AT_count")
            elif "DW_AT_upper_bound" in bound.attributes:
                yield _number(bound, "DW_AT_upper_bound") + 1
            else:
                yield 0


def _size(die: DIE, depth: int = 0) -> int:
    if depth > _DEPTH:
        raise ValueError("an array that is its own element")
    if die.tag == "DW_TAG_array_type":
        size = _size(_type(die), depth + 1)
        for count in _counts(die):
            size *= count
        return size
    if die.tag == "DW_TAG_pointer_type" and "DW_AT_byte_size" not in die.attributes:
        return _POINTER
    return _number(die, "DW_AT_byte_size")


def _stride(die: DIE) -> int:
    if die.tag != "DW_TAG_array_type":
        return 0
    stride = _size(_type(die))
    for count in list(_counts(die))[1:]:  # the rest of several dimensions
        stride *= count
    return stride
