"""The client of the server: where it is, requests, and the log followed over a WebSocket."""
