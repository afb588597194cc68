"""The names that packages import: one documented place, and the former paths."""

from __future__ import annotations

from importlib import import_module

import pytest

from navi_jupyter import plugins
from navi_jupyter.agent.profiles.context_providers import ContextProvider
from navi_jupyter.agent.tools.base import Tool, ToolOutput
from navi_jupyter.model.runs import Effect


def test_plugins_has_all_that_a_package_needs() -> None:
    assert (plugins.Tool, plugins.ToolOutput, plugins.Effect) == (Tool, ToolOutput, Effect)
    assert plugins.ContextProvider is ContextProvider


@pytest.mark.parametrize(
    ("path", "name"), [("toolbox", "Tool"), ("toolbox", "ToolOutput"), ("contexts", "ContextProvider")]
)
def test_a_former_path_still_has_the_name(path: str, name: str) -> None:
    assert getattr(import_module(f"navi_jupyter.agent.{path}"), name) is getattr(plugins, name)
