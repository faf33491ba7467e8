"""Generated from proto/soundhash/v1; `make proto` writes it anew."""
