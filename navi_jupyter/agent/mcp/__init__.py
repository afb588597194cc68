"""MCP servers: from ``mcpServers`` JSON to tools that a run can call.

``config`` reads the files, ``pool`` has the servers of this process and offers their tools to runs, ``connection``
starts and restarts one of them, ``calls`` tracks the running calls, ``process_guard`` ends the processes of a server
with this one. ``client`` and ``stdio`` import the SDK, which takes more than half a second: only ``connection`` imports
``client``, in a thread, when the first server is used.
"""
