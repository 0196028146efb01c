"""What the experts of a trained model do: the numbers behind the paper's Figures 1, 3, 4, 6 and 7; ``plots`` draws."""
