"""The distiller: follows versions and samples, and teaches a smaller student what the live version knows."""
