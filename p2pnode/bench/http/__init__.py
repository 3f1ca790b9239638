"""HTTP servers for the API, compared: who vanishes, who sends nonsense, and what a token costs."""
