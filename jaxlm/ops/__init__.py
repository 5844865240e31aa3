"""Pure functions on arrays: every formula of the library. They know neither Flax nor meshes."""
