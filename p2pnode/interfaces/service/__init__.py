"""A node that the system starts and keeps: a service of one account, by systemd or launchd."""
