"""From what a person has at hand to what a model takes: a model's name, pictures, texts, names of classes."""
