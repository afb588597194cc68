"""The table: every operation there is."""

from __future__ import annotations

from . import about, recalls, sessions
from .table import Routes

ROUTES = Routes((*about.OPERATIONS, *sessions.OPERATIONS, *recalls.OPERATIONS))
