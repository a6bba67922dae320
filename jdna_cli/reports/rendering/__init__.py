"""Tables, figures, and plots."""
