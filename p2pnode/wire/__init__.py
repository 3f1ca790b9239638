"""Published formats: bytes to frozen values and back."""
