"""What a model remembers of its training data, and how it treats groups: a wing of `jaxlm audit`."""
