# SPDX-License-Identifier: GPL-2.0-or-later
"""Choices as text: read, written, drawn, refused."""

from dataclasses import fields

import pytest

from qemu_model.errors import UsageError
from qemu_model.model.choices import (
    BEST,
    FIXED,
    WORST,
    Choices,
    Report,
    Visibility,
    choose,
)


@pytest.mark.parametrize("choices", [BEST, WORST, Choices(zero_ahead=7), choose("random", 3)])
def test_text_and_back(choices: Choices) -> None:
    assert choose(str(choices)) == choices


def test_words_are_those_of_the_command_line() -> None:
    assert str(BEST) == ""
    assert str(Choices(visibility=Visibility.DSB, zero_ahead=8)) == "zero_ahead=8,visibility=dsb"
    assert choose("gpf=precise,lost_cas_keeps_entry=no") == Choices(
        gpf=Report.PRECISE, lost_cas_keeps_entry=False
    )
    assert choose("best") == choose("") == BEST
    assert choose("worst") == WORST


def test_random_goes_by_the_seed_and_reaches_everything_that_is_not_fixed() -> None:
    drawn = [choose("random", seed) for seed in range(60)]
    assert drawn == [choose("random", seed) for seed in range(60)]
    for field in fields(Choices):
        values = {getattr(choices, field.name) for choices in drawn}
        assert (len(values) == 1) == (field.name in FIXED), field.name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wurst", "give best, worst, random, or NAME=VALUE of zero_ahead"),
        ("no_such=1", "no_such=1"),
        ("visibility", "'visibility': give best"),
        ("visibility=never", "visibility=never: give at-once or dsb"),
        ("af_with_refusal=1", "af_with_refusal=1: give yes or no"),
        ("gpf=", "gpf=: give precise or fsc"),
        ("zero_ahead=-1", "zero_ahead=-1: give a number"),
        ("zero_ahead=1000000", "zero_ahead=1000000"),
        ("fsc_delay=99999999999999999999", "give a number"),
        ("zero_ahead=1,,", "''"),
        ("failed_cas_dirties=no", "QEMU asks for write permission"),
    ],
)
def test_bad_words(text: str, words: str) -> None:
    with pytest.raises(UsageError, match="--choices") as error:
        choose(text)
    assert words in str(error.value)


def test_what_qemu_has_chosen_may_be_said() -> None:
    assert choose("failed_cas_dirties=yes") == BEST
