"""The API of OpenAI, as its own clients speak it."""
