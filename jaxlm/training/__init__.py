"""Training: state, optimizer, step, checkpoints, reports and the loop that joins them."""
