"""Values in, one context and its report out. Pure: no clock, no chance, no I/O."""
