"""Settings of each command: a dataclass declares its command line, its TOML file and its function's arguments."""
