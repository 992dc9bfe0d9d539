# SPDX-License-Identifier: GPL-2.0-or-later
"""A vmlinux is read, and everything that is none is refused in one sentence."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.vmlinux.elf import Symbol, Vmlinux
from qemu_model.vmlinux.sites import find_sites
from tests.unit.vmlinux.kernel_like import HEAD, KERNEL, TEXT, image_of, run, tool, vmlinux

E_MACHINE, E_SHOFF, E_SHENTSIZE, E_SHNUM = 18, 40, 58, 60
SH_OFFSET, SH_SIZE = 24, 32
"""Offsets of fields of the ELF header and of a section header, in bytes."""


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return vmlinux(tmp_path)


def refused(path: Path) -> str:
    """What the UsageError says; the file's path is in it."""
    with pytest.raises(UsageError) as caught:
        Vmlinux(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text


def patched(path: Path, offset: int, value: int, size: int = 8) -> Path:
    """The file with a little-endian number put into it."""
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = value.to_bytes(size, "little")
    path.write_bytes(data)
    return path


def section_header(path: Path, name: str) -> int:
    """File offset of the header of a section."""
    data = path.read_bytes()
    (start,) = struct.unpack_from("<Q", data, E_SHOFF)
    size, count, strings = struct.unpack_from("<HHH", data, E_SHENTSIZE)
    (names,) = struct.unpack_from("<Q", data, start + strings * size + SH_OFFSET)
    for at in range(start, start + count * size, size):
        (text,) = struct.unpack_from("<I", data, at)
        if data[names + text : data.index(b"\0", names + text)] == name.encode():
            return int(at)
    raise AssertionError(name)


def test_symbols_and_code(kernel: Path) -> None:
    elf = Vmlinux(kernel)
    assert elf.address("_text") == TEXT
    enter = elf.find("__guest_enter")
    assert enter == Symbol(TEXT + 4, 12, "__guest_enter")
    assert elf.find("none") is None
    (code,) = elf.code()
    assert code.address == TEXT and len(code.data) == 4096
    assert code.data[:4] == bytes.fromhex("1f2003d5")
    assert elf.data(".none") == b"" and elf.section_address(".none") == 0
    assert elf.section_address(".text") == TEXT


def test_places(kernel: Path) -> None:
    elf = Vmlinux(kernel)
    assert elf.place("_text") == TEXT
    assert elf.place("_text+8") == elf.place("_text + 0x8") == TEXT + 8
    assert elf.place("__guest_enter+0x4") == TEXT + 8
    for text in ("none", "none+8", "", "+8"):
        with pytest.raises(UsageError, match="no symbol"):
            elf.place(text)
    for text in ("_text+", "_text+x", "_text+-8", "_text+8+8", f"_text+{1 << 64}"):
        with pytest.raises(UsageError, match="is not"):
            elf.place(text)


def test_names_of_addresses(kernel: Path) -> None:
    elf = Vmlinux(kernel)
    assert elf.name_of(TEXT) == "_text"
    assert elf.name_of(TEXT + 4) == "__guest_enter"
    assert elf.name_of(TEXT + 8) == "__guest_enter+0x4"
    assert elf.name_of(TEXT - 4) == hex(TEXT - 4)
    assert elf.name_of(TEXT + (1 << 24)) == hex(TEXT + (1 << 24))


def test_several_symbols_of_one_name(tmp_path: Path) -> None:
    twice = "    .set once, .\nonce_more:\n    nop\n"
    source = f'{KERNEL}\n{twice}    .pushsection .text.b, "ax"\n    nop\n    .popsection\n'
    first = vmlinux(tmp_path, source)
    renamed = tmp_path / "renamed"
    run(tool("objcopy"), "--redefine-sym", "once_more=ret_to_user", first, renamed)
    elf = Vmlinux(renamed)
    assert len(elf.symbols["ret_to_user"]) == 2
    with pytest.raises(UsageError, match="2 symbols are called ret_to_user"):
        elf.find("ret_to_user")
    with pytest.raises(UsageError, match="unique"):
        elf.place("ret_to_user+4")


def test_aliases_of_one_address_are_one_place(tmp_path: Path) -> None:
    source = f"{KERNEL}\nother:\n    nop\n"
    first, renamed = vmlinux(tmp_path, source), tmp_path / "renamed"
    run(tool("objcopy"), "--add-symbol", f"other=.text:{0x1000:#x},function", first, renamed)
    elf = Vmlinux(renamed)
    assert len(elf.symbols["other"]) == 2
    assert elf.address("other") == TEXT + 0x1000


def test_an_image_of_this_build(kernel: Path) -> None:
    Vmlinux(kernel).require_image(image_of(kernel))


@pytest.mark.parametrize("how", ["other bytes", "too short", "empty", "missing", "directory"])
def test_an_image_of_another_build(kernel: Path, how: str) -> None:
    image = image_of(kernel)
    data = image.read_bytes()
    match how:
        case "other bytes":
            image.write_bytes(data[:-1] + b"\1")
        case "too short":
            image.write_bytes(data[:-4])
        case "empty":
            image.write_bytes(b"")
        case "missing":
            image.unlink()
        case "directory":
            image = kernel.parent
    # Two good files that do not belong together are no wrong usage.
    error = UsageError if how in ("missing", "directory") else InfrastructureError
    with pytest.raises(error, match=str(image)):
        Vmlinux(kernel).require_image(image)


def test_code_below_the_image_proves_nothing(tmp_path: Path) -> None:
    kernel = vmlinux(tmp_path, KERNEL.replace("_text", "other") + "    .set _text, 0x90000000\n")
    (tmp_path / "Image").write_bytes(bytes(64))
    with pytest.raises(UsageError, match="no code behind _text"):
        Vmlinux(kernel).require_image(tmp_path / "Image")


def test_a_missing_file(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "vmlinux")
    assert "directory" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF" + bytes(100), b"text\n" * 50])
def test_no_elf_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    assert "no ELF file" in refused(path)


@pytest.mark.parametrize("machine", [62, 40, 243, 0, 0xFFFF])
def test_another_machine(kernel: Path, machine: int) -> None:
    assert "not for little-endian arm64" in refused(patched(kernel, E_MACHINE, machine, 2))


def test_a_big_endian_file(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    source, made = tmp_path / "a.s", tmp_path / "a.o"
    source.write_text(HEAD)
    run(tool("as"), "-EB", "-o", made, source)
    made.rename(path)
    assert "little-endian" in refused(path)


def test_a_stripped_file(kernel: Path) -> None:
    run(tool("strip"), kernel)
    assert "not stripped" in refused(kernel)


def test_a_file_without_sections(kernel: Path) -> None:
    patched(kernel, E_SHOFF, 0)
    assert "not stripped" in refused(kernel)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(kernel: Path, part: float) -> None:
    data = kernel.read_bytes()
    kernel.write_bytes(data[: int(len(data) * part)])
    assert any(word in refused(kernel) for word in ("truncated", "damaged"))


@pytest.mark.parametrize("section", [".text", ".symtab", ".strtab"])
@pytest.mark.parametrize("field", [SH_OFFSET, SH_SIZE])
@pytest.mark.parametrize("value", [1 << 20, 1 << 62, (1 << 64) - 1])
def test_a_section_beyond_the_file(kernel: Path, section: str, field: int, value: int) -> None:
    patched(kernel, section_header(kernel, section) + field, value)
    said = refused(kernel)
    assert "damaged" in said and f"section '{section}'" in said


@pytest.mark.parametrize(
    ("field", "value", "size"),
    [(E_SHENTSIZE, 0, 2), (E_SHENTSIZE, 63, 2), (E_SHNUM, 0xFFFF, 2), (E_SHOFF, 1 << 63, 8)],
)
def test_a_damaged_section_table(kernel: Path, field: int, value: int, size: int) -> None:
    assert any(word in refused(patched(kernel, field, value, size))
               for word in ("truncated", "damaged"))  # fmt: skip


def test_a_section_count_that_would_last_for_ever(kernel: Path) -> None:
    patched(kernel, E_SHNUM, 0, 2)
    (start,) = struct.unpack_from("<Q", kernel.read_bytes(), E_SHOFF)
    patched(kernel, start + SH_SIZE, 1 << 60)
    assert "no section table" in refused(kernel)


def test_names_outside_the_string_table(kernel: Path) -> None:
    header = section_header(kernel, ".symtab")
    (table,) = struct.unpack_from("<Q", kernel.read_bytes(), header + SH_OFFSET)
    before = len(Vmlinux(kernel).symbols)
    patched(kernel, table + 24, 0xFFFF_FFFF, 4)
    patched(kernel, table + 48, 0xFFFF_FFFF, 4)
    assert before - 2 <= len(Vmlinux(kernel).symbols) <= before


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=6))
def test_flipped_bytes_are_read_or_refused(whole: Path, flips: list[tuple[float, int]]) -> None:
    data = bytearray(whole.read_bytes())
    for where, mask in flips:
        data[int(where * (len(data) - 1))] ^= mask
    use(whole.with_name("flipped"), bytes(data))


@settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_flipped_headers_are_read_or_refused(whole: Path, data: st.DataObject) -> None:
    content = bytearray(whole.read_bytes())
    (start,) = struct.unpack_from("<Q", content, E_SHOFF)
    table, symbols = range(start, len(content)), section_header(whole, ".symtab")
    (first,) = struct.unpack_from("<Q", content, symbols + SH_OFFSET)
    where = [*range(64), *table, *range(first, first + 240)]
    for at in data.draw(st.lists(st.sampled_from(where), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    use(whole.with_name("flipped"), bytes(content))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vmlinux(tmp_path_factory.mktemp("whole"))


def use(path: Path, content: bytes) -> None:
    """Everything that users of a vmlinux do; only our own errors may escape."""
    path.write_bytes(content)
    try:
        elf = Vmlinux(path)
        find_sites(elf)
        elf.place("_text+4")
        elf.name_of(TEXT)
        elf.require_image(path)
    except (UsageError, InfrastructureError) as error:
        assert str(error)
