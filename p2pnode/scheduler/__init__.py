"""Policy, pure: who should hold which layers, and which chain serves a request."""
