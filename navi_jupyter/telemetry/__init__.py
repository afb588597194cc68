"""Spans for OpenTelemetry: the port ``ports.tracing`` over its SDK, which is imported only where it is switched on.

Not responsible for figures of the process: these are Prometheus' (``server.metrics``).
"""
