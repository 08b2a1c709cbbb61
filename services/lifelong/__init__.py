"""A large language model that keeps learning from your event stream while it serves."""
