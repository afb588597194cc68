"""SQL about logs that are over: their compaction, and the conversation that is read of them."""
