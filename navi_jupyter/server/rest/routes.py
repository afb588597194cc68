"""The table: every operation there is."""

from __future__ import annotations

from . import about, attachments, kernels, memory, recalls, sessions
from .table import Routes

ROUTES = Routes(
    operation for module in (about, sessions, recalls, memory, attachments, kernels) for operation in module.OPERATIONS
)
