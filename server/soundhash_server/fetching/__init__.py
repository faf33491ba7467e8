"""From a URL to a local file: guarded downloads, yt-dlp, and why they fail."""
