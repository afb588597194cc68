"""The operations under ``navi/api/``: one table that routes, validates and documents them.

Imported by the start task, never at extension load.
"""
