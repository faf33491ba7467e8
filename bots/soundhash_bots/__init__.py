"""Bots that answer "which video is this?" where people ask it. They import the SDK
(`soundhash`) and nothing else of the platform; the border is checked by import-linter."""
