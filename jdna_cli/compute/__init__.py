"""What this machine computes with: threads, and the types it is fast in."""
