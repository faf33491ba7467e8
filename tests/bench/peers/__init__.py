"""Other programs beside ours, on the same clips in the same run."""
