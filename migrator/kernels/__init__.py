"""What patterns are made of: steps with their reverses."""
