"""Preparing data: lists and labels from a data set's archive, reports on its videos, copies that decode faster."""
