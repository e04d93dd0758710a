"""What is checked before the first iteration, a function for each kind of mistake."""
