"""``docs/reference.md`` cannot rot: everything it must list is listed."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import navi_jupyter
from navi_jupyter.agent.profiles.context_providers import BUILTIN
from navi_jupyter.agent.profiles.files import ProfileForm
from navi_jupyter.agent.tools.permissions import BY_EFFECT
from navi_jupyter.errors import NaviError, RunFailed
from navi_jupyter.model.runs import Effect, RunLimits
from navi_jupyter.server import metrics
from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.rest import ROUTES
from navi_jupyter.settings import Limits, Settings

PACKAGE = Path(navi_jupyter.__file__).parent
REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")


def rows(start: str) -> list[str]:
    """The rows of the page's tables that begin so."""
    return [line for line in REFERENCE.splitlines() if line.startswith(start)]


def test_every_route_has_its_row() -> None:
    for operation in ROUTES.operations:
        (row,) = rows(f"| `{operation.method} {operation.path}` | {operation.action} |")
        assert operation.summary in row
        assert all(f"`{query.name}`" in row for query in operation.query)


def test_every_error_code_has_its_row_with_its_status() -> None:
    for module in pkgutil.walk_packages(navi_jupyter.__path__, "navi_jupyter."):  # an error of any of them
        if ".injected." not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for error in kinds_of(NaviError):
        if error is not RunFailed:
            assert rows(f"| `{error.code}` | {error.status} |"), error


def kinds_of(error: type[NaviError]) -> Iterator[type[NaviError]]:
    """All of our errors."""
    yield error
    for kind in error.__subclasses__():
        if kind.__module__.startswith("navi_jupyter.") and ".kernel" not in kind.__module__:
            yield from kinds_of(kind)


def test_every_code_of_a_failed_run_has_its_row() -> None:
    codes = {code for file in PACKAGE.rglob("*.py") for code in run_codes(ast.parse(file.read_text(encoding="utf-8")))}
    assert {"timed_out", "interrupted", "provider_auth", "max_iterations"} <= codes
    section = REFERENCE.split("## How runs fail", 1)[1].split("\n## ", 1)[0]
    assert not [code for code in codes if f"| `{code}` |" not in section]


def run_codes(tree: ast.Module) -> Iterator[str]:
    """String literals given as ``run_code=``, to ``Failure(code=)``, or returned by ``_classify``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            wanted = {"run_code"} | ({"code"} if getattr(node.func, "id", "") == "Failure" else set())
            for keyword in node.keywords:
                if keyword.arg in wanted and isinstance(keyword.value, ast.Constant):
                    yield str(keyword.value.value)
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "_RULES":
            for rule in ast.walk(node):  # (exception, code, message)
                if isinstance(rule, ast.Tuple) and len(rule.elts) == 3 and isinstance(rule.elts[1], ast.Constant):
                    yield str(rule.elts[1].value)


_NO_TRAITS = {"limits", "lease", "public_url"}  # not for users to set


def test_every_setting_has_its_row_with_its_variable_and_its_meaning() -> None:
    traits = NaviExtension().traits()
    for name in (*(set(Settings.__dataclass_fields__) - _NO_TRAITS), *Limits.__dataclass_fields__):
        (row,) = rows(f"| `{name}` | `NAVI_{name.upper()}` |")
        assert traits[name].help in row
        assert traits[name].default() == "" or f"`{traits[name].default()}`" in row


def test_every_metric_has_its_row() -> None:
    for name in metrics.NAMES:
        assert rows(f"| `{name}` |")


def test_every_context_provider_every_effect_and_every_key_of_a_profile_is_there() -> None:
    assert all(rows(f"| `{provider.name}` |") for provider in BUILTIN)
    for effect in Effect:
        (row,) = rows(f"| `{effect.value}` | {BY_EFFECT[effect].value} |")
        assert row
    section = REFERENCE.split("## Profiles", 1)[1].split("\n## ", 1)[0]
    example = tomllib.loads(section.split("```toml\n", 1)[1].split("```", 1)[0])
    form = ProfileForm.model_validate(example)
    assert set(ProfileForm.model_fields) - form.model_fields_set == {"instructions"}
    assert "`instructions`" in section
    assert set(example["limits"]) == set(RunLimits.model_fields)
