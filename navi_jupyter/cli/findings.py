"""What ``navi doctor`` finds: one line each; and the checks of what a server sends by itself, notifications and spans.

Not responsible for the other checks, nor for how findings are printed (``doctor``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from jupyter_core.paths import jupyter_config_path

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
