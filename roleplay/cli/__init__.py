"""The command line. ``main`` names the commands; each loads what it needs when it runs."""
