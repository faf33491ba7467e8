"""Monitors: live sources that a worker listens to."""
