"""The one format of results: rows, and what reads, queries and logs them."""
