"""``%navi`` and ``%%navi``. Synchronous: IPython does not await magics.

Not responsible for what a line means (``grammar``) or for how things look (``render``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from . import api, cell_outputs, notebook
from .ask import Reply, painter_here
from .attachments import KernelAttachment
from .client import current_service
from .command_line import Action, Prompt, Request, parse_cell, parse_line, parse_prompt
from .errors import Interrupted, KernelError, Refused, UsageError
from .interpolation import interpolate
from .listing import Listing
from .recall_command import RECALL_HELP, NewRecall
from .recalls import Recall, change_all, foresee, new_recall, read_words
from .render import clock_words, usage_words
from .session import Session, sessions_table
from .shell import current_shell, show

_LONGEST_SOURCE = 4000
"""Characters of a cell's source that go with its output."""

HELP = """\
%navi TEXT                              ask; the answer streams into the cell (-b: do not wait for it)
%%navi [-b] [--model M] [--mode M]      the same with the cell as the question; {name} takes a variable's value
%navi recall in 10m check the loss      come back once; also: at 18:30 …, at tomorrow 8:30 …
%navi recall every 1h check the loss    come back regularly; also: cron "0 9 * * 1-5" … (--tz, --max-fires, …)
%navi recall every other friday at 16:00 check the loss   a time in English (in quotes where it is not clear where
                                        it ends); its meaning and the next times are shown
%navi recall when done summarize        come back when the running cell is done; also: failed, slow 10m, idle, died,
                                        changed FILE, true "loss < 0.1" (--each: every time it happens)
%navi recalls [--all]                   what is scheduled; then: %navi cancel|pause|resume|fire ID
%navi recall pause all, resume all
%navi away                              what ran while you were away, and what did not and why
%navi stop                              stop what is running
%navi approve|deny [ID]                 let a tool run that asks, or not (--always; %navi approvals lists them)
%navi --with-output 7 TEXT              send along what cell [7] showed (or: last); --attach FILE a file
%navi --mode steer TEXT                 tell the run in progress (interrupt, rollback, collect; %navi queue)
%navi remember TEXT, memory, forget ID  what Navi knows about you in every session
%navi usage, tools, profiles, models, mcp
%navi session [new | use ID | list]     this notebook's session
%navi model [NAME], %navi profile [NAME]
%navi export [md|ipynb|json] [FILE]     save the conversation
%navi chat                              the chat, in this notebook
%navi -- TEXT                           TEXT is a question, whatever its first word is
"""


@magics_class
class NaviMagics(Magics):
    """Registered by ``%load_ext navi_jupyter``."""

    # IPython would evaluate what is in braces; we only look names up (and leave JSON and code alone).
    @line_cell_magic
    @no_var_expand
    def navi(self, line: str, cell: str | None = None) -> Any:
        """Ask Navi, or tell it what to do. ``%navi`` alone shows the status; ``%navi help`` the commands."""
        return self._do(parse_line(line) if cell is None else parse_cell(line, cell))

    def _do(self, request: Request) -> Any:
        match request:
            case Prompt():
                return self._ask(request)
            case NewRecall():
                return self._recall(request)
            case Action(name="deny" | "answer", options={"else": words}) if not api.session().approvals:
                return self._ask(parse_prompt(f"-- {words}"))
            case Action():
                return _ACTIONS[request.name](request)

    def _recall(self, request: NewRecall) -> Recall | Reply | None:
        service, target = current_service(), api.session(request.session)
        schedule, policy, message = request.schedule, request.policy, request.message
        if request.words is not None:
            try:
                read = read_words(service, request.words, tz=request.tz, sentence=request.sentence)
            except Refused as refused:
                if request.sentence and refused.server_code == "invalid_request":
                    return self._ask(parse_prompt(f"-- recall {request.words}"))  # no time in it: for the agent
                raise
            schedule, policy = read["schedule"], read["policy"] | request.policy
            message = read["message"] or message
            if not message:
                raise UsageError(f"What should Navi do then? {RECALL_HELP}")
            print(f"I read {read['phrase'] or request.words!r} as: {read['meaning']}")
            _foretell(read)
        elif schedule["kind"] in ("cron", "every"):
            _foretell(foresee(service, schedule))
        return new_recall(
            service,
            target.id,
            self._filled(message),
            schedule,
            title=request.title,
            policy=policy,
        )

    def _ask(self, prompt: Prompt) -> Reply | None:
        text = self._filled(prompt.text) if prompt.interpolate else prompt.text
        shown, sources = self._outputs(prompt)
        files = [*(file for file in shown if not file.picture), *prompt.files]
        asking = api.session(prompt.session).asking(
            text + sources,
            show=painter_here(),
            model=prompt.model,
            mode=prompt.mode,
            display=None if text + sources == prompt.text else prompt.text,
            images=[file for file in shown if file.picture],
            files=files,
        )
        if not prompt.wait:
            return asking.start()
        try:
            return asking.wait()
        except Interrupted:
            return asking.reply(waited=False)

    def _outputs(self, prompt: Prompt) -> tuple[list[KernelAttachment], str]:
        """What ``--with-output`` names, and what the model is told of where it comes from."""
        shown, told = [], ""
        for which in prompt.outputs:
            files, source = cell_outputs.outputs_of(current_shell(), which)
            shown += files
            names = ", ".join(file.name for file in files)
            told += f"\n\n[{names}: the output of this cell]\n```\n{source[:_LONGEST_SOURCE].strip()}\n```"
        return shown, told

    def _filled(self, text: str) -> str:
        return interpolate(text, current_shell().user_ns, _shown)


def _foretell(read: dict[str, Any]) -> None:
    """The next times of a schedule and what is odd about it, before it is stored."""
    if len(read["times"]) > 1:
        print(f"Next: {', '.join(map(clock_words, read['times'][:3]))}, …")
    for warning in read["warnings"]:
        print(f"Note: {warning}")


def _shown(value: Any) -> str:
    """A value as the notebook would show it in plain text (which is short for long lists and data frames)."""
    formatted, _ = current_shell().display_formatter.format(value, include={"text/plain"})
    return str(formatted.get("text/plain", repr(value)))


# --- the other subcommands
# ---------------------------------------------------------------------------------------------


def _status(_: Action) -> None:
    print(_status_text())
    print()
    print(HELP, end="")


def _status_text() -> str:
    """One paragraph; a server that is not there is part of the status, not an error."""
    try:
        service = current_service()
        health = service.call("GET", "health")
        state = api.session().state
    except KernelError as problem:
        return f"Navi is not available: {problem}"
    doing = "busy" if state["run"] else "idle"
    waiting = len(api.recalls())
    return (
        f"Navi {health['version']} at {service.connection.url}\n"
        f"session {state['title']!r} ({state['id']}), {doing}, model {state['model']}, profile {state['profile']}, "
        f"{waiting} recall{'' if waiting == 1 else 's'} waiting"
    )


def _help(_: Action) -> None:
    print(HELP, end="")


def _stop(_: Action) -> None:
    print("Stopping." if api.session().stop() else "Nothing is running.")


def _recalls(action: Action) -> Listing[Recall]:
    return api.recalls(all="all" in action.options)


def _away(_: Action) -> Listing[dict[str, Any]]:
    return api.session().away()


def _change_all(action: Action) -> None:
    word = action.name.removesuffix("_all")
    count = change_all(current_service(), word)
    print(f"{count} recall{'' if count == 1 else 's'} {word}d.")


def _change_recall(action: Action) -> Recall:
    service = current_service()
    recall = Recall(service, service.call("GET", f"recalls/{action.args[0]}"))
    change: Callable[[], Recall] = getattr(recall, action.name)
    return change()


def _session(action: Action) -> Session | Listing[dict[str, Any]]:
    service = current_service()
    match action.args:
        case ("list",):
            notebook.session_id(service)
            return sessions_table(service)
        case ("new",):
            created = notebook.create(service)
            service.session_id = created["id"]
        case ("use", wanted):
            # Asked for first: an id that is not there must not become this notebook's.
            state = Session(service, wanted).state
            service.session_id = state["id"]
            here = notebook.notebook_path(service.connection.root_dir)
            if here and state["notebook_path"] != here:
                print("Until this kernel restarts: the session belongs to another notebook.")
    return api.session()


def _profile(action: Action) -> Listing[dict[str, Any]] | None:
    return _setting("profile", "profiles", action)


def _model(action: Action) -> Listing[dict[str, Any]] | None:
    return _setting("model", "models", action)


def _setting(name: str, plural: str, action: Action) -> Listing[dict[str, Any]] | None:
    """Alone: what there is. With a name: use it in this session."""
    session = api.session()
    if action.args:
        print(f"The session's {name} is now {session.change(**{name: action.args[0]})[name]}.")
        return None
    chosen = session.state[name]

    def row(item: dict[str, Any]) -> list[str]:
        return [
            "→" if item["name"] == chosen else "",
            item["name"],
            item.get("description") or "",
            item.get("why") or "",
        ]

    columns = ("", name, "", "needs")
    return Listing(current_service().call("GET", plural)[plural], columns, row, empty=f"There are no {plural}.")


def _export(action: Action) -> None:
    kind, file = action.args
    session = api.session()
    path = Path(file) if file else _free_name(session.id, kind)
    if path.exists() and "force" not in action.options:
        raise UsageError(f"{path} is there already: add --force to replace it.")
    session.export(path, format=kind)
    print(f"Saved the conversation as {path}.")


def _free_name(session_id: str, kind: str) -> Path:
    stem = f"navi-{session_id.rpartition('_')[2][:8]}"
    names = (Path(f"{stem}{'' if n == 1 else f'-{n}'}.{kind}") for n in range(1, 10_000))
    return next(path for path in names if not path.exists())


def _approve(action: Action) -> None:
    session = api.session()
    for question in _asked(session, action.args[0] if action.args else "", kind="approval"):
        session.approve(question["id"], always="always" in action.options)
        print(f"Approved: {question['message']}")


def _deny(action: Action) -> None:
    session = api.session()
    chosen, reason = action.args
    for question in _asked(session, chosen):
        if question["kind"] == "approval":
            session.deny(question["id"], reason or None)
        else:
            session.decline(question["id"])
        print(f"Denied: {question['message']}")


def _answer(action: Action) -> None:
    session = api.session()
    chosen, text = action.args
    for question in _asked(session, chosen, kind="question"):
        session.answer(question["id"], _payload(question.get("response_schema") or {}, text))
        print(f"Answered: {question['message']}")


def _asked(session: Session, chosen: str, *, kind: str | None = None) -> list[dict[str, Any]]:
    """The open question that is meant: the one with that id, else the only one. Raises UsageError."""
    asked = [question for question in session.approvals if kind in (None, question["kind"])]
    if chosen:
        asked = [question for question in asked if question["id"] == chosen]
    if not asked:
        raise UsageError("No such question is open in this session.")
    if len(asked) > 1:
        raise UsageError(f"{len(asked)} questions are open: name one by its ID; %navi approvals lists them.")
    return asked


def _payload(schema: dict[str, Any], text: str) -> Any:
    """What was typed, as the question's schema has it: JSON, or the value of its only field."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    names = list(schema.get("properties") or {})
    if schema.get("type") == "object" and not isinstance(value, dict):
        if len(names) != 1:
            raise UsageError(f"The answer has these fields: {', '.join(names)}. Write it as JSON.")
        return {names[0]: text if schema["properties"][names[0]].get("type") == "string" else value}
    return value


def _queue(_: Action) -> Listing[dict[str, Any]]:
    return api.session().queue


def _approvals(_: Action) -> Listing[dict[str, Any]]:
    return api.session().approvals


def _usage(_: Action) -> None:
    spent = current_service().call("GET", "usage")
    print(f"this session:  {usage_words(api.session().usage) or 'nothing yet'}")
    for name, words in (("today", "today"), ("last_30_days", "last 30 days"), ("total", "in all")):
        print(f"{words + ':':<14} {usage_words(spent.get(name) or {}) or 'nothing yet'}")


def _tools(_: Action) -> Listing[dict[str, Any]]:
    def row(tool: dict[str, Any]) -> list[str]:
        summary = (tool.get("description") or "").partition("\n")[0]
        return [tool["name"], tool.get("permission") or "", tool.get("source") or "", tool.get("why") or summary]

    tools = current_service().call("GET", "tools", query={"session_id": api.session().id})["tools"]
    return Listing(tools, ("tool", "may run", "from", ""), row, empty="There are no tools.")


def _mcp(_: Action) -> Listing[dict[str, Any]]:
    def row(server: dict[str, Any]) -> list[str]:
        return [server["name"], server["status"], server.get("why") or ""]

    return Listing(
        current_service().call("GET", "mcp")["mcp"],
        ("server", "status", ""),
        row,
        empty="No MCP server is configured: put mcpServers into navi/mcp.json in Jupyter's config directory.",
    )


def _remember(action: Action) -> None:
    fact = api.remember(action.args[0])
    print(f"Remembered ({fact['id']}): {fact['text']}")


def _memory(action: Action) -> Listing[dict[str, Any]]:
    return api.memory(action.args[0] if action.args else None)


def _forget(action: Action) -> None:
    api.forget(action.args[0])
    print("Forgotten.")


def _chat(_: Action) -> None:
    show(api.chat())


_ACTIONS: dict[str, Callable[[Action], Any]] = {
    "status": _status,
    "help": _help,
    "stop": _stop,
    "recalls": _recalls,
    "away": _away,
    "cancel": _change_recall,
    "pause": _change_recall,
    "resume": _change_recall,
    "fire": _change_recall,
    "pause_all": _change_all,
    "resume_all": _change_all,
    "session": _session,
    "profile": _profile,
    "model": _model,
    "export": _export,
    "chat": _chat,
    "approve": _approve,
    "deny": _deny,
    "answer": _answer,
    "approvals": _approvals,
    "queue": _queue,
    "usage": _usage,
    "tools": _tools,
    "profiles": _profile,
    "models": _model,
    "mcp": _mcp,
    "remember": _remember,
    "memory": _memory,
    "forget": _forget,
}
