"""Mentions: what a prompt can name with ``@`` (cells, errors, variables, files, sessions, recalls), and its content."""
