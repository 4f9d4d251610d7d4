"""The asyncio twin of each file of ``session`` that waits for something, under the same name."""
