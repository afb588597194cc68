"""Profiles: the built-in ones, and those of TOML files, with what is wrong in which line."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navi_jupyter.agent.profiles.definitions import PROFILES
from navi_jupyter.agent.profiles.files import ProfileBook
from navi_jupyter.agent.router import AgentRouter
from navi_jupyter.agent.tools.builtin import builtin_tools
from navi_jupyter.config_files import line_of, lines_of
from navi_jupyter.errors import InvalidRequest
from navi_jupyter.model.runs import Effect, Permission, RunLimits
from navi_jupyter.model.sessions import RunStatus, SessionCreate
from navi_jupyter.server.wire.agent import ProfileInfo
from navi_jupyter.settings import Limits

from .test_permissions import a_tool
from .test_whole import ask, services


class Folder:
    """A directory of profiles, and a book that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)
        self.book = ProfileBook([path], check_model=AgentRouter.validate)

    def write(self, name: str, text: str) -> Path:
        file = self.path / f"{name}.toml"
        file.write_text(text, encoding="utf-8")
        return file

    def why(self, name: str) -> str | None:
        (entry,) = [one for one in self.book.describe() if one["name"] == name]
        ProfileInfo.model_validate(entry)
        assert entry["available"] == (entry["why"] is None)
        why: str | None = entry["why"]
        return why


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "navi" / "profiles")


# --- the built-in ones -----------------------------------------------------------------------------------------------


def test_assistant_analyst_and_watcher_are_built_in() -> None:
    book = ProfileBook()
    assert [entry["name"] for entry in book.describe()] == ["assistant", "analyst", "watcher"]
    assert all(entry["available"] and entry["builtin"] for entry in book.describe())
    with pytest.raises(InvalidRequest, match=r"no profile 'x'. There is: assistant, analyst, watcher\."):
        book.get("x")


def test_the_watcher_mostly_reads_and_asks_no_server_at_night() -> None:
    watcher = PROFILES["watcher"]
    assert watcher.headless_asks == "deny"
    assert watcher.subagents == ()
    for tool in builtin_tools().values():
        assert watcher.offers(tool) == (tool.effect in (Effect.READ, Effect.NOTE) or tool.name == "run_code"), tool.name
    assert watcher.offers(a_tool("look_up", Effect.READ, "mcp:wiki"))
    assert not watcher.offers(a_tool("post", Effect.OUTSIDE, "mcp:wiki"))


def test_assistant_and_analyst_are_offered_every_tool() -> None:
    for tool in (*builtin_tools().values(), a_tool("x", Effect.OUTSIDE, "mcp:x"), a_tool("y", source="kernel")):
        assert PROFILES["assistant"].offers(tool)
        assert PROFILES["analyst"].offers(tool)


def test_instructions_name_only_tools_that_are_there() -> None:
    """What stands in backticks and looks like a call must be one."""
    known = set(builtin_tools()) | {"error", "next", "allow"}
    for profile in PROFILES.values():
        quoted = profile.instructions.split("`")[1::2]
        assert quoted
        assert set(quoted) <= known, profile.name


# --- files -----------------------------------------------------------------------------------------------------------

WHOLE = """\
# My own way
extends = "analyst"
description = "German, careful"
model = "anthropic:claude-x"
more_instructions = "Answer in German."
tools = ["*", "!run_*", "run_code"]
headless = "deny"
mcp = ["github", "!*"]
workers = ["assistant"]

[permissions]
run_code = "allow"
"effect:write" = "deny"

[context]
memory = false

[limits]
max_iterations = 7
timeout = "5m"
"""


def test_a_file_says_everything_that_a_profile_is(folder: Folder) -> None:
    file = folder.write("mine", WHOLE)
    mine = folder.book.get("mine")
    assert mine.description == "German, careful"
    assert mine.model == folder.book.model_of("mine") == "anthropic:claude-x"
    assert mine.instructions == PROFILES["analyst"].instructions + "\n\nAnswer in German."
    assert mine.permissions == {"run_code": Permission.ALLOW, "effect:write": Permission.DENY}
    assert mine.headless_asks == "deny"
    assert mine.context == {"memory": False}
    assert (mine.limits.max_iterations, mine.limits.timeout) == (7, timedelta(minutes=5))
    assert (mine.builtin, mine.path) == (False, str(file))
    assert mine.offers(a_tool("run_code"))
    assert not mine.offers(a_tool("run_cell"))
    assert not mine.uses_server("github")
    assert mine.delegates_to("assistant")
    assert not mine.delegates_to("watcher")
    assert folder.why("mine") is None


def test_what_a_file_does_not_say_comes_from_the_assistant(folder: Folder) -> None:
    folder.write("plain", 'instructions = "Be brief."')
    plain, assistant = folder.book.get("plain"), PROFILES["assistant"]
    assert plain.instructions == "Be brief."
    assert (plain.tools, plain.headless_asks, plain.model) == (assistant.tools, assistant.headless_asks, None)


def test_files_extend_one_another_and_tables_add_up(folder: Folder) -> None:
    folder.write("a", 'extends="b"\n[permissions]\nx="deny"\n[limits]\nmax_tokens=5')
    folder.write(
        "b", 'extends="watcher"\nmodel="offline"\n[permissions]\nx="ask"\ny="allow"\n[limits]\nmax_iterations=3'
    )
    a = folder.book.get("a")
    assert a.permissions == {"x": Permission.DENY, "y": Permission.ALLOW}
    assert (a.limits.max_tokens, a.limits.max_iterations) == (5, 3)
    assert (a.model, a.tools) == ("offline", PROFILES["watcher"].tools)


def test_a_file_may_take_the_place_of_a_built_in_profile_and_extend_it(folder: Folder) -> None:
    folder.write("assistant", 'extends = "assistant"\nmore_instructions = "Rhyme."')
    assert folder.book.get("assistant").instructions.endswith("Rhyme.")
    assert folder.book.get("assistant").instructions.startswith(PROFILES["assistant"].instructions)
    folder.write("other", "")
    assert folder.book.get("other").instructions.endswith("Rhyme.")


def test_of_two_directories_the_first_wins(tmp_path: Path) -> None:
    mine, theirs = Folder(tmp_path / "user"), Folder(tmp_path / "system")
    theirs.write("a", 'description = "system"')
    theirs.write("b", 'description = "system"')
    mine.write("a", 'description = "user"')
    book = ProfileBook([tmp_path / "none", mine.path, theirs.path])
    assert book.get("a").description == "user"
    assert book.get("b").description == "system"


@pytest.mark.parametrize(
    ("wanted", "max_iterations", "timeout", "max_tokens", "max_cost"),
    [
        ({}, 50, 600.0, 1000, 0.0),
        ({"max_iterations": 7, "timeout": "5m", "max_tokens": 10, "max_cost": 0.5}, 7, 300.0, 10, 0.5),
        ({"max_iterations": 99, "timeout": "1h", "max_tokens": 9999}, 50, 600.0, 1000, 0.0),
    ],
)
def test_limits_of_a_profile_tighten_those_of_the_server_and_never_loosen_them(
    wanted: dict[str, Any], max_iterations: int, timeout: float, max_tokens: int, max_cost: float
) -> None:
    server = Limits(max_iterations=50, run_timeout=600.0, run_token_budget=1000, session_token_budget=5)
    both = server.within(RunLimits.model_validate(wanted))
    assert (both.max_iterations, both.run_timeout) == (max_iterations, timeout)
    assert (both.run_token_budget, both.run_cost_budget, both.session_token_budget) == (max_tokens, max_cost, 5)


async def test_a_run_ends_at_the_limit_of_its_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    Folder(tmp_path / "config" / "navi" / "profiles").write("quick", '[limits]\ntimeout = "300ms"')
    async with services(tmp_path) as built:
        session = await built.sessions.orchestrator.sessions.create(SessionCreate(profile="quick"), owner="ada")
        run = await ask(built, session.id, "count to 5000")
    assert run.status is RunStatus.TIMED_OUT
    assert run.error is not None
    assert "0.3 seconds" in run.error.message


async def test_a_new_session_has_the_model_of_its_profile_unless_it_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    Folder(tmp_path / "config" / "navi" / "profiles").write("mine", 'model = "anthropic:x"')
    async with services(tmp_path, default_profile="mine") as built:
        for request, model in (
            (SessionCreate(), "anthropic:x"),
            (SessionCreate(profile="mine"), "anthropic:x"),
            (SessionCreate(profile="mine", model="offline"), "offline"),
            (SessionCreate(profile="assistant"), "offline"),
        ):
            assert (await built.sessions.orchestrator.sessions.create(request, owner="ada")).model == model


# --- reloading -------------------------------------------------------------------------------------------------------


def test_a_changed_file_counts_without_a_restart(folder: Folder) -> None:
    file = folder.write("mine", 'description = "one"')
    assert folder.book.get("mine").description == "one"
    folder.write("mine", 'description = "two!"')
    assert folder.book.get("mine").description == "two!"
    file.unlink()
    with pytest.raises(InvalidRequest, match="no profile 'mine'"):
        folder.book.get("mine")
    folder.write("mine", 'description = "three"')
    assert folder.book.get("mine").description == "three"


def test_nothing_is_read_again_that_did_not_change(folder: Folder) -> None:
    folder.write("mine", 'description = "one"')
    first = folder.book.get("mine")
    folder.write("other", "")
    folder.book.get("other")
    assert folder.book.get("mine") == first
    assert folder.book.get("other") is folder.book.get("other")


def test_a_file_that_got_broken_leaves_its_last_good_version_in_use_and_says_so(folder: Folder) -> None:
    file = folder.write("mine", 'description = "good"')
    folder.book.get("mine")
    folder.write("mine", 'description = "bad"\nheadless = "never"')
    assert folder.book.get("mine").description == "good"
    why = folder.why("mine")
    assert why is not None
    assert why.startswith(f"{file}:2: headless: ")
    assert "last good version" in why
    folder.write("mine", 'description = "mended"')
    assert folder.book.get("mine").description == "mended"
    assert folder.why("mine") is None


def test_a_change_reaches_those_that_extend_it(folder: Folder) -> None:
    folder.write("child", 'extends = "parent"')
    folder.write("parent", 'instructions = "one"')
    assert folder.book.get("child").instructions == "one"
    folder.write("parent", 'instructions = "three"')
    assert folder.book.get("child").instructions == "three"
    folder.write("parent", "instructions = 3")
    assert folder.book.get("child").instructions == "three"
    assert folder.why("child") is None


# --- what is wrong, and where ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('description = "x"\ntols = []\n', 2, "tols: there is no such setting; did you mean tools?"),
        ("\n\nquite_wrong = 1\n", 3, "there are: extends, description"),
        (
            '[permissions]\n# c\nrun_code = "maybe"\n',
            3,
            "permissions.run_code: Input should be 'allow', 'ask' or 'deny'",
        ),
        ('tools = [\n  "a",\n  3,\n]\n', 3, "tools.1: "),
        ('description = """\nhead = 1\n"""\nmodel = 5\n', 4, "model: "),
        ('model = "nobody:x"\n', 1, "model: There is no model provider 'nobody'"),
        ('# c\nextends = "nobody"\n', 2, "extends: there is no profile 'nobody'; there is: assistant"),
        ('# c\nextends = "broken"\n', 2, "extends: it extends itself (broken extends broken)"),
        ("[limits]\nmax_iterations = 0\n", 2, "limits.max_iterations: "),
        ('[limits]\n\ntimeout = "soon"\n', 3, "limits.timeout: "),
        ("[limits]\ntime_out = 3\n", 2, "did you mean timeout?"),
        ('[context]\nmemory = "no"\n', 2, "context.memory: "),
        ("limits = { max_iterations = 1, max_tokens = -1 }\n", 1, "limits.max_tokens: "),
        ('a = "\n', 1, ""),
        ("x = 1\nx = 2\n", 2, ""),
        ("tools = 'x'\n", 1, "tools: "),
        ('headless = "ask"\n', 1, "not 'ask'"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(folder: Folder, text: str, line: int, said: str) -> None:
    file = folder.write("broken", text)
    why = folder.why("broken")
    assert why is not None
    assert why.startswith(f"{file}:{line}: "), why
    assert said in why
    with pytest.raises(InvalidRequest) as refused:
        folder.book.get("broken")
    assert f"{file}:{line}" in refused.value.message
    assert refused.value.field == "profile"
    assert folder.book.model_of("broken") is None


def test_all_that_is_wrong_is_said_in_the_order_of_the_file(folder: Folder) -> None:
    folder.write("broken", 'x = 1\ntools = 3\n[permissions]\na = "b"\n')
    why = folder.why("broken")
    assert why is not None
    assert [row.split(":")[1] for row in why.splitlines()] == ["1", "2", "4"]


def test_profiles_that_extend_each_other_in_a_circle_are_refused(folder: Folder) -> None:
    folder.write("a", 'extends = "b"')
    folder.write("b", 'extends = "a"')
    for name in "ab":
        why = folder.why(name)
        assert why is not None
        assert "extends itself" in why


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a = [" * 20_000, b"#" * 300_000, b"\0"])
def test_a_file_that_is_no_text_of_a_sane_size_is_reported_about(folder: Folder, content: bytes) -> None:
    (folder.path / "odd.toml").write_bytes(content)
    assert folder.why("odd")
    assert folder.book.get("assistant").name == "assistant"


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder: Folder) -> None:
    (folder.path / "win.toml").write_bytes(b'\xef\xbb\xbfdescription = "w"\r\nheadless = "deny"\r\n')
    assert folder.book.get("win").headless_asks == "deny"


def test_a_file_whose_name_is_no_name_is_reported_about(folder: Folder) -> None:
    folder.write("two words", "")
    why = folder.why("two words")
    assert why is not None
    assert "the name of the file" in why


def test_files_that_are_no_profiles_are_left_alone(folder: Folder) -> None:
    (folder.path / ".hidden.toml").write_text("x = 1")
    (folder.path / "notes.txt").write_text("x = 1")
    (folder.path / "folder.toml").mkdir()
    assert [entry["name"] for entry in folder.book.describe()] == list(PROFILES)


# --- lines -----------------------------------------------------------------------------------------------------------


def test_the_line_of_every_kind_of_key_is_found() -> None:
    written = (
        "a = 1.5  # [no]",
        'b."x y".c = """',
        "[not]",
        "k = 2",
        '"""',
        "[[many]]",
        "z = 1979-05-27T07:32:00Z",
        "[[many]]",
        "z = [",
        "  1, # one",
        "  {q = 2},",
        "]",
        '["quoted.name"]',
        "'in ner' = true",
    )
    text = "\n".join(written)
    tomllib.loads(text)
    lines = lines_of(text)
    assert line_of(("a",), lines) == 1
    assert line_of(("b", "x y", "c"), lines) == 2
    assert line_of(("many", 0, "z"), lines) == 7
    assert line_of(("many", 1, "z", 0), lines) == 10
    assert line_of(("many", 1, "z", 1, "q"), lines) == 11
    assert line_of(("quoted.name", "in ner"), lines) == 14
    assert line_of(("quoted.name", "in ner", "deeper"), lines) == 14
    assert line_of(("nowhere",), lines) == 1


@given(st.text(alphabet="[]{}=.,\"'\n a#1\\", max_size=60))
def test_no_text_confuses_the_search_for_lines(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in lines_of(text).values())


KEYS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True)


@given(st.dictionaries(st.sampled_from("tuvw"), KEYS, max_size=4), KEYS, st.data())
def test_each_key_is_found_on_the_line_where_it_was_written(
    tables: dict[str, list[str]], top: list[str], data: st.DataObject
) -> None:
    written: list[str] = []
    places: dict[tuple[str, ...], int] = {}

    def put(path: tuple[str, ...]) -> None:
        written.extend(data.draw(st.lists(st.sampled_from(["", "# c = 1", "  "]), max_size=2)))
        value = data.draw(st.sampled_from(["1", '"#"', "[\n1,\n]", '"""\nx=1\n"""', "{ z = 1 }", "1.5", "'['"]))
        places[path] = sum(one.count("\n") + 1 for one in written) + 1
        written.append(f"{path[-1]} = {value}")

    for key in top:
        put((key,))
    for table, keys in tables.items():
        written.append(f"[{table}]")
        for key in keys:
            put((table, key))
    text = "\n".join(written)
    tomllib.loads(text)
    found = lines_of(text)
    assert {path: found[path] for path in places} == places
