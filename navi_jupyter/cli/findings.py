"""What ``navi doctor`` finds: one line each; and the checks of what a server sends by itself, notifications and spans,
and of the service of a JupyterHub where it sends everything.

Not responsible for the other checks, nor for how findings are printed (``doctor``).
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal
from urllib.parse import urlsplit

from jupyter_core.paths import jupyter_config_path

from .. import __version__
from .backup import configured_settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what a check found."""

    check: str
    status: Literal["ok", "warn", "fail"]
    text: str
    fix: str | None = None  # what to do; None when there is nothing to do


def notification_targets() -> Iterator[Finding]:
    """The targets of ``navi/notify.toml`` and of the environment, people's and programs'. Nothing is sent."""
    # Late: other checks do not need these.
    from ..notifications.apprise_sender import MISSING, why_unusable
    from ..notifications.targets import FILE_NAME, TargetFiles
    from ..notifications.webhook_sender import why_unusable_address

    private = configured_settings().notify_allow_private
    targets = TargetFiles(
        jupyter_config_path,
        check=lambda url: why_unusable(url, allow_private=private),
        check_webhook=lambda url: why_unusable_address(url, allow_private=private),
    ).read()
    for problem in targets.problems:
        yield Finding("notify", "warn", problem.message, f"correct {problem.file}")
    for target in targets.targets.values():
        hook = target.webhook
        if target.wrong is not None:
            yield Finding("notify", "warn", target.wrong, f"correct {target.source}")
        elif hook is not None:
            what = ", ".join(["firings of recalls that name it", *(f"every {kind}" for kind in sorted(hook.events))])
            yield Finding("notify", "ok", f"{target.name}: a webhook, for {what}")
        elif find_spec("apprise") is None:
            yield Finding("notify", "warn", f"{target.name}: its package is not installed", MISSING)
        else:
            yield Finding("notify", "ok", f"{target.name}: notified of firings of recalls that name it")
    if not targets.targets and not targets.problems:
        yield Finding("notify", "ok", f"no targets: there is none in {FILE_NAME} of Jupyter's configuration path")


def spans() -> Iterator[Finding]:
    """Whether spans are reported to OpenTelemetry, and where to."""
    from ..telemetry.spans import settings_of, why_missing  # late: as above

    settings = configured_settings()
    if not settings.otel:
        yield Finding("otel", "ok", "off: no spans are reported (NAVI_OTEL, c.NaviExtension.otel)")
        return
    chosen = settings_of()
    if chosen["exporter"] == "none":
        yield Finding(
            "otel", "warn", "on, but OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER switches it off", "unset these"
        )
    elif (command := why_missing()) is not None:
        yield Finding("otel", "warn", "on, but the packages for it, or its exporter, are not installed", command)
    else:
        content = "with what people and models write" if settings.otel_content else "without content"
        yield Finding("otel", "ok", f"spans go to {chosen['endpoint']} ({chosen['exporter']}), {content}")


_ANSWER_WITHIN = 10.0  # seconds
_ASK_ADMINISTRATOR = "tell the administrator of the JupyterHub"


def hub_service() -> Iterator[Finding]:
    """The service of the JupyterHub that keeps everything of this server: whether it answers this server's token."""
    url, token = configured_settings().hub_service_url.rstrip("/"), os.environ.get("JUPYTERHUB_API_TOKEN", "")
    if not token:
        text = f"{url} is set, but this is in no server of a JupyterHub (JUPYTERHUB_API_TOKEN is not set)"
        yield Finding("service", "fail", text, "run this in a terminal or notebook of the server")
        return
    status, health = _asked(f"{url}/navi/api/health", token)
    version = health.get("version")
    if status == 403:
        yield _refused(url, token)
    elif version is None:
        why = f"it answered {status}" if status else "no answer came"
        yield Finding("service", "fail", f"{url} is no Navi service, or it is off: {why}", _ASK_ADMINISTRATOR)
    elif status != 200:
        text = f"{url}: Navi {version} is {health.get('status')}: {health.get('message')}"
        yield Finding("service", "fail", text, _ASK_ADMINISTRATOR)
    elif version != __version__:
        text = f"{url} answers with Navi {version}; this server has {__version__}"
        yield Finding("service", "warn", text, f"{_ASK_ADMINISTRATOR}: both are to have the same version")
    else:
        text = f"{url} answers the token of this server: Navi {version}, as here, is {health.get('status')}"
        yield Finding("service", "ok", f"{text}; it keeps everything, and its settings count")


def _refused(url: str, token: str) -> Finding:
    """Why the service refuses the token: the Hub knows what it is for."""
    scope = f"access:services!service={urlsplit(url).path.rpartition('/')[2]}"
    status, about = _asked(f"{os.environ.get('JUPYTERHUB_API_URL', '').rstrip('/')}/user", token)
    text = f"{url} refuses the token of this server"
    if status == 403:
        return Finding("service", "fail", f"{text}, and so does the JupyterHub", "stop the server, and start it again")
    if status == 200 and not {scope, scope.partition("!")[0]} & set(about.get("scopes", ())):
        fix = (
            f"{_ASK_ADMINISTRATOR}: Spawner.server_token_scopes and the role user need it, then start the server again"
        )
        return Finding("service", "fail", f"{text}: it has no scope {scope}", fix)
    return Finding("service", "fail", text, _ASK_ADMINISTRATOR)


def _asked(url: str, token: str) -> tuple[int, dict[str, Any]]:
    """The status and the object of an answer. 0: no answer came; an empty object: it was none."""
    # The environment's proxies are for the world outside; the service is a neighbour.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Authorization": f"token {token}"})  # noqa: S310 - the administrator's
    status, content = 0, b""
    try:
        with opener.open(request, timeout=_ANSWER_WITHIN) as answer:
            status, content = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    except (OSError, ValueError):
        return 0, {}
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    return status, found if isinstance(found, dict) else {}
