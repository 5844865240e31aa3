"""Training: state, optimizer, phases, step, and the loop with its hooks."""
