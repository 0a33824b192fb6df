"""The common format of results: rows, with reading, queries and live logging."""
