"""Text and JSON from outside: well-formed, and nested no deeper than everything that reads it can stand."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navi_jupyter.event_redaction import scrubbed
from navi_jupyter.events import ActivitySnapshot, Custom
from navi_jupyter.input.json_input import (
    MAX_DEPTH,
    JsonPieces,
    load_json,
    well_formed,
    well_formed_json,
    well_formed_value,
)
from navi_jupyter.jupyter.kernels.transport import DELIM, DecodeLimits, MessageParser
from navi_jupyter.kernel.grammar.answers import payload_from
from navi_jupyter.text import plain_number, with_article

ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs"]) | st.sampled_from('\x00\\"ud8De0'))
JSON_LIKE = st.lists(
    st.sampled_from(["\\", "u", "d", "8", "3", "D", "e", "0", "a", '"', "\ud83d", "\ude00", "\\ud83d", "\\ude00", "é"])
).map("".join)


@given(ANY_TEXT)
def test_well_formed_text_can_be_encoded_and_is_left_alone(text: str) -> None:
    clean = well_formed(text)
    clean.encode()
    assert "\x00" not in clean
    assert well_formed(clean) is clean


def test_the_halves_of_a_pair_are_their_character_and_lone_ones_are_replaced() -> None:
    assert well_formed("\ud83d\ude00 \ud83d \ude00\ud83d") == "\U0001f600 \ufffd \ufffd\ufffd"
    assert well_formed_value({"a\ud83d": ["\x00", {"b": ("\ude00", 1, None)}]}) == {
        "a\ufffd": ["\ufffd", {"b": ("\ufffd", 1, None)}]
    }
    kept = {"a": ["b", {"c": 1}]}
    assert well_formed_value(kept) is kept


@given(ANY_TEXT, st.booleans())
def test_json_is_read_as_the_well_formed_text_that_it_stands_for(text: str, escaped: bool) -> None:
    raw = json.dumps({text: text}, ensure_ascii=escaped)
    clean = well_formed(text)
    assert load_json(raw) == {clean: clean} == load_json(raw.encode("utf-8", "surrogatepass"))


@given(JSON_LIKE, st.lists(st.integers(1, 5)))
def test_json_in_pieces_is_what_it_is_in_one(text: str, sizes: list[int]) -> None:
    pieces, out, at = JsonPieces(), "", 0
    for size in [*sizes, len(text)]:
        out += pieces.add(text[at : at + size])
        at += size
    assert out + pieces.rest() == well_formed_json(text)


@pytest.mark.parametrize("opened", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 5_000, 100_000])
@pytest.mark.parametrize("closed", [True, False])
def test_json_that_is_nested_too_deeply_is_a_value_error(opened: str, depth: int, closed: bool) -> None:
    ends = "".join({"[": "]", "{": "}"}[one] for one in reversed(opened) if one in "[{")
    with pytest.raises(ValueError):  # noqa: PT011 - any of them
        load_json(opened * depth + "1" + ends * (depth if closed else 0))


def test_json_up_to_the_bound_is_read() -> None:
    value: Any = load_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert well_formed_value(value) == value


def test_events_are_written_well_formed_whatever_tools_put_into_them() -> None:
    content = {"outputs": [{"text": "a\ud83d", "k\x00": "\ud83d\ude00"}]}
    event = ActivitySnapshot(message_id="m", activity_type="navi.output", content=content)
    kept = {"outputs": [{"text": "a\ufffd", "k\ufffd": "\U0001f600"}]}
    assert json.loads(event.wire())["content"] == kept
    assert scrubbed(event).content == kept  # type: ignore[attr-defined]
    custom = Custom(name="navi.tool", value={"a": "\x00 \\u0000"})
    assert json.loads(custom.wire())["value"] == {"a": "\ufffd \\u0000"}


def test_numbers_and_articles_are_written_as_people_write_them() -> None:
    assert [plain_number(one) for one in (2.0**53, 10**17, 0.5, 30, 1e300, 0.1 + 0.2)][:4] == [
        "9007199254740992", "100000000000000000", "0.5", "30",
    ]  # fmt: skip
    assert "e" not in plain_number(1e300)
    assert [with_article(one) for one in ("integer", "number", "string")] == ["an integer", "a number", "a string"]


DEEP = "[" * 5_000 + "]" * 5_000


@pytest.mark.parametrize("place", range(3))
def test_a_message_of_a_kernel_that_is_nested_too_deeply_is_passed_over(place: int) -> None:
    parts = [b'{"msg_type": "error"}', b"{}", b"{}", b"{}"]
    parts[place] = b'{"deep": ' + DEEP.encode() + b"}"
    session = SimpleNamespace(auth=None)
    raw = MessageParser(session).parse([DELIM, b"", *parts])
    assert raw is None
    content = MessageParser(session).parse([DELIM, b"", b'{"msg_type": "display_data"}', b"{}", b"{}", DEEP.encode()])
    assert content is not None
    with pytest.raises(ValueError, match="nested"):
        content.decode(DecodeLimits())


def test_an_answer_that_is_typed_and_nested_too_deeply_is_text() -> None:
    assert payload_from({"type": "string"}, DEEP) == DEEP
