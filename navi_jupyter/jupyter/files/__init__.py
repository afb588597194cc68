"""Files below the server's root: listed, read, written, searched."""
