"""The HTTP server: OpenAI's protocol over the engine's slots, and the chat page."""
