"""Being woken: schedules, policies, the ledger, the loop that fires."""
