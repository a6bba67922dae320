"""How a model of some form is trained on, and measured against, a task of some kind."""
