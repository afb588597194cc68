"""The table: every operation there is."""

from __future__ import annotations

from . import about, attachments, kernels, memory, notifications, recall_sets, recalls, sessions
from .routing import Routes

ROUTES = Routes(
    operation
    for module in (about, sessions, recalls, recall_sets, memory, attachments, kernels, notifications)
    for operation in module.OPERATIONS
)
