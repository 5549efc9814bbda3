"""A Hub on the loopback interface, for tests: what the real clients ask of the Hub, in memory."""
