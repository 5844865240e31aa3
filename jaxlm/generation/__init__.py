"""Text generation: decoding loops over an explicit key/value cache."""
