"""Linen modules that name and create parameters; every formula they use is in `jaxlm.ops`."""
