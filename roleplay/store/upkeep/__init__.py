"""What goes over a tenant's rows at once: checks and their mending, and erasure."""
