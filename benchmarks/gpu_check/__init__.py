"""Everything that only a GPU can show, in two commands of under nine minutes: `make gpu-check`."""
