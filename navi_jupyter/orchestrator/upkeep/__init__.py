"""What goes on beside the sessions: looks for what other servers have done, leases, take-over, compaction of logs."""
