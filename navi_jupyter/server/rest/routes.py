"""The table: every operation there is."""

from __future__ import annotations

from . import about, attachments, kernels, memory, notify, recall_sets, recalls, sessions
from .table import Routes

ROUTES = Routes(
    operation
    for module in (about, sessions, recalls, recall_sets, memory, attachments, kernels, notify)
    for operation in module.OPERATIONS
)
