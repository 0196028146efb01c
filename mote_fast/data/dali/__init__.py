"""DALI as a decoder of a GPU: all of its code; without this folder and its line in the table it is gone."""
