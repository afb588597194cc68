"""Who may let a tool run: every combination of effect, profile, session, ceiling and origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest

from navi_jupyter.agent.offline.backend import OfflineBackend
from navi_jupyter.agent.profiles.definitions import PROFILES, Profile
from navi_jupyter.agent.registry import default_parts
from navi_jupyter.agent.router import AgentRouter
from navi_jupyter.agent.tools.base import Tool, ToolOutput
from navi_jupyter.agent.tools.permissions import BY_EFFECT, ToolPermissions, rule_for, strictest
from navi_jupyter.model.runs import Effect, Permission
from navi_jupyter.model.sessions import USER, Origin, OriginKind
from navi_jupyter.ports.agent import ToolContext
from tests.support.agent_world import Bench

ALLOW, ASK, DENY = Permission.ALLOW, Permission.ASK, Permission.DENY
RECALL = Origin(kind=OriginKind.RECALL, recall_id="c_1")


async def _nothing(_: Mapping[str, object]) -> ToolOutput:
    return ToolOutput(content="")


def a_tool(name: str = "run_code", effect: Effect = Effect.RUN, source: str = "builtin") -> Tool:
    return Tool(name=name, description="d", parameters={"type": "object"}, effect=effect, call=_nothing, source=source)


def a_profile(**fields: object) -> Profile:
    return replace(PROFILES["assistant"], name="mine", **fields)  # type: ignore[arg-type]


@pytest.fixture
def context() -> ToolContext:
    _, context = Bench(OfflineBackend()).turn("x")
    return context


def within(context: ToolContext, *allowed: str, origin: Origin = USER) -> ToolContext:
    return replace(context, origin=origin, session=context.session.but(allowed_tools=allowed))


# --- the whole table -------------------------------------------------------------------------------------------------

CASES = [*product(Effect, (None, ALLOW, ASK, DENY), (False, True), (None, ALLOW, ASK, DENY), ("user", "queue", "deny"))]


@pytest.mark.parametrize(("effect", "profile", "session", "ceiling", "asked"), CASES)
def test_deny_wins_then_the_session_the_profile_and_the_effect_below_the_ceiling(
    effect: Effect,
    profile: Permission | None,
    session: bool,
    ceiling: Permission | None,
    asked: str,
    context: ToolContext,
) -> None:
    tool = a_tool("it", effect)
    permissions = ToolPermissions(ceiling={} if ceiling is None else {"it": ceiling})
    headless = "deny" if asked == "deny" else "queue"
    mine = a_profile(permissions={} if profile is None else {"it": profile}, headless_asks=headless)
    here = within(context, *(["it"] if session else []), origin=USER if asked == "user" else RECALL)
    decided = permissions.decide(tool, (mine,), here)

    # The specification, written as conditions on the answer instead of as the way to it:
    read_only = effect in (Effect.READ, Effect.NOTE)
    assert (decided is DENY) == (
        DENY in (profile, ceiling)
        or (
            asked == "deny"
            and (ceiling is ASK or (not session and (profile is ASK or (profile is None and not read_only))))
        )
    )
    if decided is ALLOW:
        assert ceiling in (None, ALLOW)
        assert session or profile is ALLOW or (profile is None and read_only)
    if decided is ASK:
        assert asked != "deny"
        assert ceiling is ASK or not session
    assert permissions.explain(tool, (mine,), here)


def test_by_default_looking_and_notes_are_allowed_and_all_else_asks() -> None:
    assert {effect: permission.value for effect, permission in BY_EFFECT.items()} == {
        Effect.READ: "allow",
        Effect.NOTE: "allow",
        Effect.WRITE: "ask",
        Effect.RUN: "ask",
        Effect.OUTSIDE: "ask",
    }
    clamped = ToolPermissions(ceiling={"effect:note": ASK})
    assert clamped.by_default(a_tool("remember", Effect.NOTE)) is ASK
    assert clamped.by_default(a_tool("look", Effect.READ)) is ALLOW


# --- patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ({"*": DENY, "run_*": ASK, "run_code": ALLOW}, ALLOW),
        ({"run_code": ALLOW, "run_*": ASK, "*": DENY}, ALLOW),
        ({"*": DENY, "run_*": ASK}, ASK),
        ({"*": ALLOW, "write_*": DENY}, ALLOW),
        ({"write_*": DENY}, None),
        ({"run_c*": ALLOW, "*code": DENY}, ALLOW),
        ({"run_*": ALLOW, "*code": DENY}, DENY),
        ({"run_*": DENY, "*code": ALLOW}, DENY),
        ({"effect:run": DENY, "*": ALLOW}, DENY),
        ({"effect:run": DENY, "run_code": ALLOW}, ALLOW),
        ({"effect:read": DENY}, None),
        ({"source:builtin": ASK}, ASK),
        ({"source:mcp:*": DENY}, None),
        ({"RUN_CODE": DENY}, None),
    ],
)
def test_the_pattern_that_fits_best_counts_and_of_equals_the_strictest(
    rules: dict[str, Permission], wanted: Permission | None
) -> None:
    rule = rule_for(a_tool(), rules)
    assert (rule[1] if rule else None) is wanted


def test_of_the_ceiling_the_strictest_rule_that_matches_counts_however_short(context: ToolContext) -> None:
    permissions = ToolPermissions(ceiling={"run_code": ALLOW, "*": ASK, "source:mcp:github": DENY})
    allowing = a_profile(permissions={"*": ALLOW})
    assert permissions.decide(a_tool(), (allowing,), context) is ASK
    foreign = a_tool("create_issue", Effect.OUTSIDE, "mcp:github")
    assert permissions.decide(foreign, (allowing,), within(context, "create_issue")) is DENY
    assert "administrator" in permissions.explain(foreign, (allowing,), context)


def test_a_ceiling_that_allows_gives_nothing(context: ToolContext) -> None:
    assert ToolPermissions(ceiling={"*": ALLOW}).decide(a_tool(), (a_profile(),), context) is ASK


def test_strictest_of_none_is_allow() -> None:
    assert strictest([]) is ALLOW
    assert strictest([ASK, DENY, ALLOW]) is DENY


# --- headless runs ---------------------------------------------------------------------------------------------------


def test_what_is_denied_because_nobody_is_there_says_how_to_allow_it(context: ToolContext) -> None:
    permissions = ToolPermissions()
    headless = within(context, origin=RECALL)
    why = permissions.explain(a_tool(), (PROFILES["watcher"],), headless)
    assert "run_code" in why
    assert '"run_code" = "allow"' in why
    assert "watcher" in why
    allowing = replace(PROFILES["watcher"], permissions={"run_code": ALLOW})
    assert permissions.decide(a_tool(), (allowing,), headless) is ALLOW
    assert permissions.decide(a_tool(), (PROFILES["watcher"],), within(context, "run_code", origin=RECALL)) is ALLOW


def test_a_headless_run_of_the_assistant_keeps_its_question_for_later(context: ToolContext) -> None:
    assert ToolPermissions().decide(a_tool(), (PROFILES["assistant"],), within(context, origin=RECALL)) is ASK


def test_the_ceiling_reaches_the_equipment(context: ToolContext) -> None:
    agent_parts = default_parts(ceiling={"run_*": DENY}, packages=False)
    assert agent_parts.permissions.decide(a_tool(), (agent_parts.profiles.get("assistant"),), context) is DENY


async def test_what_the_administrator_denies_the_offline_backend_does_not_do_either() -> None:
    bench = Bench(AgentRouter(default_parts(ceiling={"create_recall": DENY}, packages=False)).backend_for("offline"))
    outcome = await bench.run("remind me in 10 minutes to stretch")
    assert outcome.tools == ["create_recall"]
    assert "tool_denied" in outcome.results[0]
    assert "administrator" in outcome.text
    assert bench.desk.recalls == {}


async def test_the_offline_backend_does_what_is_allowed() -> None:
    bench = Bench(AgentRouter(default_parts(ceiling={"run_*": DENY}, packages=False)).backend_for("offline"))
    await bench.run("remind me in 10 minutes to stretch")
    assert len(bench.desk.recalls) == 1
