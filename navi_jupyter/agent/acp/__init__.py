"""Agent programs: coding agents that speak the Agent Client Protocol (ACP), as the backend of models ``acp:<name>``.

The protocol: https://agentclientprotocol.com, version 1, with the official package ``agent-client-protocol`` (extra
``acp``), which is imported at the first turn of such a model.
"""
