"""Command lines, environment and files of each family of engines; ``render.launch`` chooses among them."""
