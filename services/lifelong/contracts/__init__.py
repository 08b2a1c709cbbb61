"""What the processes, the applications and the stores agree on. Imports nothing of ours but the errors."""
