"""A server of HTTP: labels, embeddings and search for uploaded videos, and a page for the browser."""
