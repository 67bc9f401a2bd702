"""What one pass shows of every block, and what is made of it."""
