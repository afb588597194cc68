"""The MCP server at ``<base_url>navi/mcp``: streamable HTTP on Jupyter's own port, for programs of the user's.

``handler`` decides who may come in, ``endpoint`` has the protocol's sessions of each caller, ``protocol`` speaks it by
the official SDK, ``offers`` has what a caller gets. Only ``handler`` is imported at extension load: the SDK takes more
than half a second to import, and ``protocol`` alone imports it, at the first request.
"""
