"""Reaching people who are not looking: what a recall's firing came to, sent through Apprise to where they are.

Not responsible for which firings are told (``recalls``), unread marks (``store.reads``) or browsers (``js``).
"""
