"""What a recipe costs before it is run: FLOPs, memory, traffic, time (`relvlm plan`)."""
