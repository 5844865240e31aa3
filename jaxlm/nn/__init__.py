"""Linen modules that create and name parameters; the formulas are in `jaxlm.ops`."""
