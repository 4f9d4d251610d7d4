"""Values to bytes of the chat API and back; no I/O, no clock."""
