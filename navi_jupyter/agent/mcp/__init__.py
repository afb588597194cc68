"""MCP servers: from ``mcpServers`` JSON to tools that a run can call.

``config`` reads the files, ``pool`` has the servers of this process, ``server`` keeps one alive, ``flights`` knows
whose calls are under way, ``guard`` sees to it that no server outlives us, ``tools`` gives them to runs. ``client``,
``stdio``, ``web`` and ``results`` import the SDK, which takes more than half a second: only ``server`` imports
``client``, in a thread, when the first server is used.
"""
