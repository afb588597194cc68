"""AG-UI 1.0 over HTTP: a run's input read as commands of a session, and the session's log shown as a plain stream."""
