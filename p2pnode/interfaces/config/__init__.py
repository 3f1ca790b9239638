"""Settings that a person keeps in a file or in the environment, for the options of commands."""
