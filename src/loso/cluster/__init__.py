"""Many machines as one: who is there and fit, and who does what."""
