"""What a step of learning is made of: loss, optimiser, precision, processes."""
