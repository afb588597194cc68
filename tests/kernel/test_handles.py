"""How a person names one of several things."""

from __future__ import annotations

import pytest

from navi_jupyter.clock import zone_label
from navi_jupyter.handles import HandleError, Named, is_full_id, resolve, row_number, short_handle, with_short_handles

LOSS = Named("rec_064f1a2b3c4d5e6f70813f2a", "Check the loss")
TEA = Named("rec_064f1a2b3c4d5e6f70819b01", "tea")
TEA_TIME = Named("rec_064f1a2b3c4d5e6f7081aa02", "Tea time reminder")
OVER = Named("rec_05000000000000000000beef", "backup")
HERE = (LOSS, TEA, TEA_TIME)


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("1", LOSS),
        ("#3", TEA_TIME),
        (LOSS.id, LOSS),
        (TEA.id.removeprefix("rec_"), TEA),
        ("3f2a", LOSS),
        ("9B01", TEA),
        ("check", LOSS),
        ("CHECK THE", LOSS),
        ("loss", LOSS),
        ("the loss", LOSS),
        ("tea", TEA),
        ("tea t", TEA_TIME),
        ("rem", TEA_TIME),
        ("backup", OVER),
        ("rec_05", OVER),
        ("05", OVER),
        ("beef", OVER),
    ],
)
def test_a_number_an_id_and_a_title_name_an_item(text: str, item: Named) -> None:
    assert resolve(text, HERE, (*HERE, OVER)) == item.id


def test_the_numbers_are_those_of_the_list_that_was_shown() -> None:
    shown = (TEA.id, OVER.id)
    assert resolve("1", HERE, shown=shown) == TEA.id
    assert resolve("2", HERE, shown=shown) == OVER.id, "it has gone since: then no other takes its number"
    with pytest.raises(HandleError, match="There is no recall 3: the list has 2"):
        resolve("3", HERE, shown=shown)


def test_a_number_that_is_no_row_does_not_reach_for_a_title_or_another_list() -> None:
    elsewhere = (Named("rec_06500000000000000000beef", "check 10 files"),)
    with pytest.raises(HandleError, match="There is no recall 1: the list is empty"):
        resolve("1", (), elsewhere, shown=())
    with pytest.raises(HandleError, match="No recall is called '1'"):
        resolve("1", (), elsewhere)
    assert resolve("10", (), elsewhere) == elsewhere[0].id, "the whole word"


def test_whole_ids_in_a_text_become_short() -> None:
    text = '{"recall": {"id": "rec_064f1a2b3c4d5e6f70813f2a"}, "sha": "x064f1a2b3c4d5e6f70813f2a"}'
    assert with_short_handles(text) == '{"recall": {"id": "3f2a"}, "sha": "x064f1a2b3c4d5e6f70813f2a"}'


def test_the_number_of_a_row_wins_over_an_id_of_these_digits() -> None:
    items = (Named("s_999999999999999999991111", "a"), Named("s_111111111111111111112222", "b"))
    assert resolve("1", items) == items[0].id
    assert resolve("11", items) == items[1].id, "no such row, but an id begins so"
    assert resolve("2222", items) == items[1].id


def test_what_names_several_is_an_error_that_lists_them() -> None:
    with pytest.raises(HandleError) as error:
        resolve("te", HERE)
    assert error.value.ambiguous
    assert str(error.value) == "'te' names 2 recalls: 'tea' (9b01) and 'Tea time reminder' (aa02)."


def test_what_names_nothing_is_an_error_that_lists_what_there_is() -> None:
    with pytest.raises(HandleError) as error:
        resolve("coffee", HERE)
    assert not error.value.ambiguous
    assert str(error.value).startswith("No recall is called 'coffee'. There is 'Check the loss' (3f2a), 'tea' (9b01)")
    with pytest.raises(HandleError, match=r"^No session is called 'x'\.$"):
        resolve("x", (), noun="session")
    with pytest.raises(HandleError):
        resolve("", HERE)


def test_the_short_handle_is_as_long_as_is_needed() -> None:
    assert short_handle(LOSS.id, [TEA.id, LOSS.id]) == "3f2a"
    assert short_handle("s_00000000000000000001abcd", ["s_00000000000000000002abcd"]) == "1abcd"
    for item in HERE:
        assert resolve(short_handle(item.id, [each.id for each in HERE]), HERE) == item.id


def test_a_complete_id_and_a_row_number_are_recognized() -> None:
    assert is_full_id(LOSS.id)
    assert not is_full_id("rec_064f")
    assert (row_number("7"), row_number("#7"), row_number("07"), row_number("x7")) == (7, 7, None, None)


@pytest.mark.parametrize(
    ("zone", "reader", "label"),
    [
        ("Etc/UTC", "UTC", ""),
        ("UTC", "Etc/UTC", ""),
        ("Etc/UTC", None, "UTC"),
        ("Etc/UTC", "Europe/Berlin", "UTC"),
        ("Asia/Tokyo", "Europe/Berlin", "Asia/Tokyo"),
        ("Asia/Tokyo", "Asia/Tokyo", ""),
    ],
)
def test_a_zone_is_named_only_where_it_is_not_the_readers(zone: str, reader: str | None, label: str) -> None:
    assert zone_label(zone, reader) == label
