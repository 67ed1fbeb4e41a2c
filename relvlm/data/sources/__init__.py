"""Builders of shard sets, one file per raw dataset; each has `add_arguments(parser)` and `main(args)`."""
