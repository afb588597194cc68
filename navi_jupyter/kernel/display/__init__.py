"""What a cell shows: a run and its answer, lists, times, the chat widget; and what cells have shown."""
