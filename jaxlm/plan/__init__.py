"""Plans of runs: what a training step needs and how long it takes on machines that are not here."""
