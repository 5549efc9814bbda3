"""Settings of each verb: a dataclass is its command line, its TOML file and the argument of its function."""
