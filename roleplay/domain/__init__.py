"""Frozen values in the field's words. Nothing here reads, writes, waits or draws."""
