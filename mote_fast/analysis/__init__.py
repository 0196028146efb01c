"""Analyses of a trained model's experts: the numbers of the paper's Figures 1, 3, 4, 6 and 7; ``plots`` draws them."""
