"""The only network I/O: drivers that feed cores with datagrams and time."""
