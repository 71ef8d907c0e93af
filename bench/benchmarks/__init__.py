"""How fast methods train: scripts that time variants side by side, and report."""
