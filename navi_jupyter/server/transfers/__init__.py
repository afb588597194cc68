"""What clients send and read, bounded in bytes, time and number while it is not finished."""
