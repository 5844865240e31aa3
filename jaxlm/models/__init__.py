"""The families, each a composition of the blocks of `jaxlm.nn`, and the heads that go on top of them."""
