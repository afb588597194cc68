"""``%navi`` and ``%%navi``. Synchronous: IPython does not await magics.

Not responsible for what a line means (``grammar``) or for how things look (``render``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from . import api, notebook
from .asking import painter_here
from .display import current_shell, show
from .errors import Interrupted, KernelError, UsageError
from .grammar import Action, NewRecall, Prompt, Request, parse_cell, parse_line
from .interpolation import interpolate
from .listing import Listing
from .recalls import Recall, new_recall
from .reply import Reply
from .service import current_service
from .session import Session, sessions_table

HELP = """\
%navi TEXT                              ask; the answer streams into the cell (-b: do not wait for it)
%%navi [-b] [--model M] [--mode M]      the same with the cell as the question; {name} takes a variable's value
%navi recall in 10m check the loss      come back once; also: at 18:30 …, at tomorrow 8:30 …
%navi recall every 1h check the loss    come back regularly; also: cron "0 9 * * 1-5" … (--tz, --max-fires, …)
%navi recalls [--all]                   what is scheduled; then: %navi cancel|pause|resume|fire ID
%navi stop                              stop what is running
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
        return self._do(parse_line(line)) if cell is None else self._ask(parse_cell(line, cell))

    def _do(self, request: Request) -> Any:
        match request:
            case Prompt():
                return self._ask(request)
            case NewRecall():
                target = api.session(request.session)
                return new_recall(
                    current_service(),
                    target.id,
                    self._filled(request.message),
                    request.schedule,
                    title=request.title,
                    policy=request.policy,
                )
            case Action():
                return _ACTIONS[request.name](request)

    def _ask(self, prompt: Prompt) -> Reply | None:
        text = self._filled(prompt.text) if prompt.interpolate else prompt.text
        display_text = None if text == prompt.text else prompt.text
        asking = api.session(prompt.session).asking(
            text, show=painter_here(), model=prompt.model, mode=prompt.mode, display=display_text
        )
        if not prompt.wait:
            return asking.start()
        try:
            return asking.wait()
        except Interrupted:
            return asking.reply(waited=False)

    def _filled(self, text: str) -> str:
        return interpolate(text, current_shell().user_ns, _shown)


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


def _chat(_: Action) -> None:
    show(api.chat())


_ACTIONS: dict[str, Callable[[Action], Any]] = {
    "status": _status,
    "help": _help,
    "stop": _stop,
    "recalls": _recalls,
    "cancel": _change_recall,
    "pause": _change_recall,
    "resume": _change_recall,
    "fire": _change_recall,
    "session": _session,
    "profile": _profile,
    "model": _model,
    "export": _export,
    "chat": _chat,
}
