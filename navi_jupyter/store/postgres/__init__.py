"""The store on a PostgreSQL database, shared by several servers: its dialect, connections and migrations."""
