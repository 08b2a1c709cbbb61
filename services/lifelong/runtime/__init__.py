"""What every process needs: a life cycle, a clock, logging, and a port that shows how it is."""
