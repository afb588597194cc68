"""Recalls of many kinds, as users would make them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.support.simulation import START

Spec = tuple[dict[str, Any], dict[str, Any]]


def when(**more: Any) -> dict[str, Any]:
    return {"kind": "when", "event": "kernel_idle", **more}


TIMED: list[Spec] = [
    ({"kind": "every", "every": "30s"}, {}),
    ({"kind": "every", "every": "7s"}, {"jitter": "4s"}),
    ({"kind": "every", "every": "45s"}, {"misfire": "all", "busy": "queue"}),
    ({"kind": "every", "every": "20s"}, {"misfire": "skip", "grace": "30s", "notify": ["phone"]}),
    ({"kind": "every", "every": "1m"}, {"busy": "skip", "notify": ["phone", "browser"]}),
    ({"kind": "every", "every": "50s"}, {"busy": "interrupt", "notify": ["browser"]}),
    ({"kind": "every", "every": "25s"}, {"max_fires": 3, "retries": 1, "notify": ["mail", "phone"]}),
    ({"kind": "every", "every": "10s"}, {"misfire": "all", "max_fires": 4}),
    ({"kind": "every", "every": "2s"}, {"max_fires": 2}),
    ({"kind": "every", "every": "3s"}, {"max_fires": 2, "retries": 2}),
    ({"kind": "every", "every": "4s"}, {"max_fires": 2, "busy": "skip"}),
    ({"kind": "every", "every": "15s"}, {"until": (START + timedelta(minutes=4)).isoformat()}),
    ({"kind": "cron", "expr": "* * * * *"}, {"max_fires": 3, "grace": "20s", "notify": ["phone"]}),
    ({"kind": "cron", "expr": "*/20 * * * * *"}, {"misfire": "skip", "jitter": "10s"}),
    ({"kind": "once", "in": "90s"}, {"retries": 2, "notify": ["mail"]}),
    ({"kind": "once", "in": "10s"}, {}),
    ({"kind": "once", "in": "20s"}, {"grace": "15s"}),
    ({"kind": "once", "in": "15s"}, {"busy": "interrupt", "timeout": "20s"}),
    ({"kind": "once", "in": "15s"}, {"busy": "queue", "timeout": "20s"}),
    ({"kind": "every", "every": "20s"}, {"cancel_on": ["user_message"], "busy": "queue"}),
    ({"kind": "every", "every": "30s"}, {"cancel_on": ["read"], "retries": 1}),
    ({"kind": "once", "in": "40s"}, {"cancel_on": ["user_message", "read"], "busy": "interrupt"}),
]
WHENS: list[Spec] = [
    (when(), {}),
    (when(), {"retries": 2, "notify": ["phone"]}),
    (when(repeat="each"), {"misfire": "all", "busy": "queue"}),
    (when(repeat="each", cooldown="20s"), {"misfire": "all"}),
    (when(repeat="each", cooldown="5s"), {"retries": 2, "max_fires": 3, "notify": ["phone"]}),
    (when(repeat="each"), {"retries": 1, "max_fires": 2, "jitter": "6s"}),
    (when(repeat="each"), {"until": (START + timedelta(minutes=4)).isoformat(), "max_fires": 3, "busy": "skip"}),
    (when(repeat="each"), {"cancel_on": ["read"], "grace": "30s"}),
]
