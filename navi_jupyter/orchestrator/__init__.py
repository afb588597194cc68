"""Sessions: their logs, their runs, who follows them."""
