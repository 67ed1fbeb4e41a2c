"""What tests and benchmarks share: made batches, shapes, the official codes' way, what a call holds in memory."""
