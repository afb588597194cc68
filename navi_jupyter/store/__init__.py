"""The store behind the ports: its SQL, and the engines that it is performed by."""
