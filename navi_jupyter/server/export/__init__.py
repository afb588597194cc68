"""A session as a file: Markdown and HTML for reading, a notebook, JSON for programs."""

from .files import FILE_TYPES, KINDS, as_markdown, as_notebook, conversation, download

__all__ = ["FILE_TYPES", "KINDS", "as_markdown", "as_notebook", "conversation", "download"]
