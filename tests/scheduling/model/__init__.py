"""The model of recalls: real planner, policy, ledger and store; time, death and users belong to a seeded explorer."""
