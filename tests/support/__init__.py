"""What the tests stand on: servers they start themselves, and rules for the run as a whole."""
