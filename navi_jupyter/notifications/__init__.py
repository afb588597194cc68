"""Notifications about the firings of recalls, sent through Apprise to the targets that a recall names.

Not responsible for which firings are notified (``scheduling``), unread marks (``store.read_marks``), browsers (``js``).
"""
