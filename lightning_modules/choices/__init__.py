"""Ways to choose the guidelines under which a question is rolled out."""
