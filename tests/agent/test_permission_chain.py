"""The table of permissions along every chain: session, profiles, subagents, recalls, steering, MCP servers, ceiling.

The oracle below is written from the specification, on plain words, and shares nothing with the code. The chain of a
recall that runs a notebook (``run: {"kind": "notebook"}`` of the contract) belongs here, too, once there is such a
recall: its links are those of a recall's run.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import pytest

from navi_jupyter.agent.offline.backend import OfflineBackend
from navi_jupyter.agent.profiles.definitions import PROFILES, Profile
from navi_jupyter.agent.run.approvals import Allowances, ApprovalGate
from navi_jupyter.agent.tools.base import Tool, ToolOutput
from navi_jupyter.agent.tools.permissions import ToolPermissions
from navi_jupyter.model.recalls import RecallCreate
from navi_jupyter.model.runs import Effect, Permission
from navi_jupyter.model.sessions import USER, Origin, OriginKind
from navi_jupyter.ports.agent import ToolContext
from tests.support.agent_world import Bench

WORDS = ("allow", "ask", "deny")
DEFAULTS = {"read": "allow", "note": "allow", "write": "ask", "run": "ask", "outside": "ask"}


@dataclass(frozen=True)
class Link:
    """One profile of the chain."""

    rule: str | None = None  # what it says of the tool
    offers: bool = True  # whether its tools have it
    server: bool = True  # whether it admits the MCP server of the tool
    headless: str = "queue"


@dataclass(frozen=True)
class Row:
    """A call, and all that has a say in it."""

    links: tuple[Link, ...]  # the session's profile, the subagent's, the nested subagent's
    effect: str = "run"
    source: str = "builtin"
    allowed: bool = False  # the tool was allowed in the session when the run began
    allowed_now: bool | None = None  # None: the session was not changed since
    always: bool = False  # "always", given during the run
    became: Link | None = None  # the profile that the session was given since the run began
    recall: bool = False  # a recall started the run
    leave: bool = False  # it may use the tool without asking
    joined: bool = False  # a prompt of the user has joined the recall's run
    ceiling: str | None = None
    asks: bool = False  # the call has a question in its own words


def oracle(row: Row) -> str:
    """What the specification says, in the order of the specification."""
    links = [*row.links, *([row.became] if row.became else [])]
    word = "allow"
    for link in links:
        says = link.rule or DEFAULTS[row.effect]
        if not link.offers or (row.source.startswith("mcp:") and not link.server):
            says = "deny"
        word = stricter(word, says)
    still = True if row.allowed_now is None else row.allowed_now
    by_session = (row.allowed or row.always) and still
    by_leave = row.recall and row.leave and not row.joined
    if word == "ask" and (by_session or by_leave):
        word = "allow"
    word = stricter(word, row.ceiling or "allow")
    if row.asks:
        word = stricter(word, "ask")
    if word == "ask" and row.recall and any(link.headless == "deny" for link in links):
        word = "deny"
    return word


def stricter(one: str, other: str) -> str:
    return max(one, other, key=WORDS.index)


async def _nothing(_: Mapping[str, object]) -> ToolOutput:
    return ToolOutput(content="")


async def _question(_args: Mapping[str, object], _context: ToolContext) -> str | None:
    return "May it?"


def a_tool(row: Row) -> Tool:
    return Tool(
        name="it", description="d", parameters={"type": "object"}, effect=Effect(row.effect), call=_nothing,
        source=row.source, asks=_question if row.asks else None,
    )  # fmt: skip


def a_profile(name: str, link: Link) -> Profile:
    return replace(
        PROFILES["assistant"],
        name=name,
        tools=("*",) if link.offers else ("*", "!it"),
        mcp=("*",) if link.server else ("*", "!shop"),
        permissions={} if link.rule is None else {"it": Permission(link.rule)},
        headless_asks="deny" if link.headless == "deny" else "queue",
    )


async def decided(row: Row) -> tuple[str, str]:
    """What the gate of a run's agent says, and why."""
    bench = Bench(OfflineBackend())
    profiles = {f"p{number}": a_profile(f"p{number}", link) for number, link in enumerate(row.links)}
    if row.became is not None:
        profiles["became"] = a_profile("became", row.became)
    allowed = ("it",) if row.allowed else ()
    bench.session = bench.session.but(profile="p0", allowed_tools=allowed)
    origin = USER
    if row.recall:
        request = {"session_id": "s_1", "message": "x", "schedule": {"kind": "once", "in": "1h"}}
        made = await bench.desk.create(
            RecallCreate.model_validate(request | {"allow": ["it"] if row.leave else []}), owner="ada", zone="UTC"
        )
        origin = Origin(kind=OriginKind.RECALL, recall_id=made.id)
    _, context = bench.turn("go", origin=origin)
    allowances = Allowances([profiles["p0"]], allowed)
    allowances.joined = row.joined
    if row.always:
        allowances.add("it")
    if row.became is not None or row.allowed_now is not None:
        still = row.allowed_now if row.allowed_now is not None else row.allowed or row.always
        bench.library.now = bench.session.but(
            profile="became" if row.became is not None else "p0", allowed_tools=("it",) if still else ()
        )
    chain = [profiles[f"p{number}"] for number in range(len(row.links))]
    ceiling = {} if row.ceiling is None else {"it": Permission(row.ceiling)}
    gate = ApprovalGate(ToolPermissions(ceiling=ceiling), profiles.__getitem__, chain, context, allowances)
    verdict = await gate.decide(a_tool(row), {})
    return verdict.permission.value, verdict.because


def links(*rules: str | None) -> tuple[Link, ...]:
    return tuple(Link(rule) for rule in rules)


RULES = (None, *WORDS)
# Every combination of what three profiles and the administrator say.
OF_PROFILES = [
    Row(links=links(*rules), ceiling=ceiling, effect=effect)
    for *rules, ceiling in product(RULES, repeat=4)
    for effect in ("run", "read")
]
# Every combination of what a session, a recall and a change during the run say, with two profiles.
OF_WORDS = [
    Row(links=links("ask", rule), allowed=allowed, always=always, recall=recall, leave=leave, joined=joined, asks=asks)
    for rule, allowed, always, recall, leave, joined, asks in product(
        WORDS, (False, True), (False, True), (False, True), (False, True), (False, True), (False, True)
    )
]


def sampled(count: int) -> list[Row]:
    """Rows with everything in them, the same ones each time."""
    dice = random.Random(11)

    def link() -> Link:
        return Link(
            rule=dice.choice(RULES),
            offers=dice.random() < 0.9,
            server=dice.random() < 0.8,
            headless=dice.choice(("queue", "queue", "deny")),
        )

    return [
        Row(
            links=tuple(link() for _ in range(dice.randint(1, 3))),
            effect=dice.choice(tuple(DEFAULTS)),
            source=dice.choice(("builtin", "kernel", "mcp:shop", "package:x")),
            allowed=dice.random() < 0.5,
            allowed_now=dice.choice((None, True, False)),
            always=dice.random() < 0.3,
            became=link() if dice.random() < 0.3 else None,
            recall=dice.random() < 0.5,
            leave=dice.random() < 0.5,
            joined=dice.random() < 0.3,
            ceiling=dice.choice((None, None, *WORDS)),
            asks=dice.random() < 0.2,
        )
        for _ in range(count)
    ]


async def check(rows: Sequence[Row]) -> None:
    wrong = [f"{row}: {found}, wanted {oracle(row)}" for row in rows for found in [(await decided(row))[0]]
             if found != oracle(row)]  # fmt: skip
    assert not wrong, f"{len(wrong)} of {len(rows)} rows, the first: {wrong[0]}"


@pytest.mark.parametrize("rule", RULES)
async def test_of_what_the_profiles_and_the_administrator_say_the_strictest_word_counts(rule: str | None) -> None:
    await check([row for row in OF_PROFILES if row.links[0].rule == rule])


@pytest.mark.parametrize("rule", WORDS)
async def test_the_users_word_lifts_a_question_and_never_a_deny(rule: str) -> None:
    await check([row for row in OF_WORDS if row.links[1].rule == rule])


async def test_a_thousand_chains_are_decided_as_the_specification_says() -> None:
    rows = sampled(1000)
    await check(rows)
    assert {oracle(row) for row in rows} == set(WORDS)


# Written by hand: the cases that the specification names. The last column is the answer.
CASES: list[tuple[str, Row, str]] = [
    ("a deny of the session's profile holds for a subagent that allows", Row(links("deny", "allow")), "deny"),
    ("a deny of the session's profile holds two subagents down", Row(links("deny", "allow", "allow")), "deny"),
    ("a deny of the subagent in the middle holds", Row(links("allow", "deny", "allow")), "deny"),
    ("a deny of the last subagent holds", Row(links("allow", "allow", "deny")), "deny"),
    ("an ask of the session's profile stays an ask", Row(links("ask", "allow")), "ask"),
    ("an ask in the middle stays an ask", Row(links("allow", "ask", "allow")), "ask"),
    ("what asks by its effect in the session asks in a subagent that allows", Row(links(None, "allow")), "ask"),
    ("what all allow is allowed", Row(links("allow", "allow", "allow")), "allow"),
    ("always in the session lifts the ask of every link", Row(links("ask", "ask", "ask"), allowed=True), "allow"),
    ("always during the run lifts it, too", Row(links("ask", "allow"), always=True), "allow"),
    ("always lifts no deny of the parent", Row(links("deny", "allow"), always=True, allowed=True), "deny"),
    ("always lifts no deny of the subagent", Row(links("allow", "deny"), always=True, allowed=True), "deny"),
    ("always does not pass the ceiling", Row(links("ask"), always=True, ceiling="ask"), "ask"),
    ("a ceiling that denies denies all", Row(links("allow", "allow"), allowed=True, ceiling="deny"), "deny"),
    ("a ceiling that allows gives nothing", Row(links("ask"), ceiling="allow"), "ask"),
    ("leave lifts the ask of a recall's run", Row(links("ask"), recall=True, leave=True), "allow"),
    ("leave lifts it in its subagents", Row(links("ask", "ask"), recall=True, leave=True), "allow"),
    ("leave lifts no deny", Row(links("ask", "deny"), recall=True, leave=True), "deny"),
    ("leave does not pass the ceiling", Row(links("ask"), recall=True, leave=True, ceiling="ask"), "ask"),
    ("leave of a recall means nothing in a user's run", Row(links("ask"), leave=True), "ask"),
    ("leave ends when a user's prompt joins the run", Row(links("ask"), recall=True, leave=True, joined=True), "ask"),
    ("what the session allows stays when a prompt joins", Row(links("ask"), recall=True, allowed=True, joined=True),
     "allow"),
    ("headless deny in the session's profile denies what would ask",
     Row((Link("ask", headless="deny"),), recall=True), "deny"),
    ("headless deny in the parent denies the question of a subagent",
     Row((Link(None, headless="deny"), Link("ask")), recall=True), "deny"),
    ("headless deny in a subagent denies its own question", Row((Link("ask"), Link("ask", headless="deny")),
     recall=True), "deny"),
    ("headless deny leaves what is allowed", Row((Link("allow", headless="deny"),), recall=True), "allow"),
    ("headless deny leaves what the recall may", Row((Link("ask", headless="deny"),), recall=True, leave=True),
     "allow"),
    ("headless deny means nothing in a user's run", Row((Link("ask", headless="deny"),)), "ask"),
    ("a tool that the session's profile lacks is not there in a subagent",
     Row((Link("allow", offers=False), Link("allow"))), "deny"),
    ("a tool that the subagent lacks is not there", Row((Link("allow"), Link("allow", offers=False))), "deny"),
    ("an MCP server that the session's profile leaves out is not used by a subagent",
     Row((Link("allow", server=False), Link("allow")), source="mcp:shop", effect="outside"), "deny"),
    ("an MCP server that the subagent leaves out is not used",
     Row((Link("allow"), Link("allow", server=False)), source="mcp:shop", effect="outside"), "deny"),
    ("a tool of an MCP server asks by default", Row(links(None), source="mcp:shop", effect="outside"), "ask"),
    ("a built-in tool does not care for servers", Row((Link("allow", server=False),)), "allow"),
    ("a stricter profile that the session gets counts at once", Row(links("allow"), became=Link("deny")), "deny"),
    ("a looser one counts for the next run", Row(links("ask"), became=Link("allow")), "ask"),
    ("a looser one lifts no deny", Row(links("deny"), became=Link("allow")), "deny"),
    ("a stricter one counts in a subagent", Row(links("allow", "allow"), became=Link("ask")), "ask"),
    ("headless deny that the session gets counts", Row(links("ask"), became=Link("ask", headless="deny"), recall=True),
     "deny"),
    ("a tool that is allowed during the run is for the next one", Row(links("ask"), allowed_now=True), "ask"),
    ("one that is taken back counts at once", Row(links("ask"), allowed=True, allowed_now=False), "ask"),
    ("an always that is taken back counts at once", Row(links("ask"), always=True, allowed_now=False), "ask"),
    ("a question in its own words asks whatever allows the tool", Row(links("allow"), allowed=True, asks=True), "ask"),
    ("leave does not answer it", Row(links("allow"), recall=True, leave=True, asks=True), "ask"),
    ("a run that cannot ask denies it", Row((Link("allow", headless="deny"),), recall=True, asks=True), "deny"),
    ("a tool that only reads is allowed", Row(links(None, None), effect="read"), "allow"),
    ("one that only reads and is denied above is denied", Row(links("deny", None), effect="read"), "deny"),
    ("one that only reads and is to ask above asks", Row(links("ask", None), effect="read"), "ask"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_the_cases_that_the_specification_names(row: Row, wanted: str) -> None:
    assert oracle(row) == wanted, "the oracle agrees"
    assert (await decided(row))[0] == wanted


def test_the_table_is_large_enough() -> None:
    assert len(OF_PROFILES) + len(OF_WORDS) + len(CASES) >= 200


async def test_the_reason_names_the_profile_that_decided() -> None:
    _, because = await decided(Row(links("allow", "deny", "allow")))
    assert because.startswith("The profile 'p1' denies it")
    assert because.endswith("It bounds this agent, too, whose own profile is 'p2'.")
    _, because = await decided(Row(links("allow", "allow", "ask")))
    assert "'p2'" in because
    _, because = await decided(Row((Link("ask"), Link("ask", headless="deny")), recall=True))
    assert "the profile 'p1' denies what would need it" in because
    _, because = await decided(Row(links("allow"), became=Link("deny")))
    assert "'became'" in because
