"""What a step reports to, and what it runs in."""
