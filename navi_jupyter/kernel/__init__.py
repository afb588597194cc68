"""Navi in a kernel: the client, ``%navi``, the chat widget.

Knows only the HTTP and WebSocket contract; nothing of the server's own modules, and works where no server is installed.
"""
