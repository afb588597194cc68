"""The administrator's ceiling, as it is configured."""

from __future__ import annotations

import pytest

from navi_jupyter.server.app import NaviExtension


@pytest.mark.parametrize("text", ['{"run_code": "deny", "effect:write": "ask"}', "run_code=deny, effect:write=ask,"])
def test_the_ceiling_is_read_from_the_environment_as_json_or_pairs(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("NAVI_TOOL_CEILING", text)
    assert NaviExtension().read_settings().tool_ceiling == {"run_code": "deny", "effect:write": "ask"}


@pytest.mark.parametrize("text", ["run_code", "run_code=maybe", "=deny", '{"a": 1}', "{", "[1]"])
def test_a_ceiling_that_can_not_be_read_stops_the_start_instead_of_holding_nothing(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("NAVI_TOOL_CEILING", text)
    with pytest.raises(ValueError, match="NAVI_TOOL_CEILING"):
        NaviExtension().read_settings()


def test_the_command_line_takes_pairs_and_what_is_configured_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NAVI_TOOL_CEILING", "*=deny")
    app = NaviExtension()
    app.parse_command_line(["--NaviExtension.tool_ceiling=run_code=deny", "--NaviExtension.tool_ceiling=x=ask"])
    assert app.tool_ceiling == {"run_code": "deny", "x": "ask"}


def test_without_a_word_there_is_no_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAVI_TOOL_CEILING", raising=False)
    assert NaviExtension().read_settings().tool_ceiling == {}
