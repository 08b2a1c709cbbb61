"""What is remembered outside of the weights: usable in milliseconds, and taken out again as fast."""
