"""Speed and memory, each figure beside its peer's and its floor's from the same run."""
