"""Text from a model: the decoding loop over an explicit key/value cache."""
