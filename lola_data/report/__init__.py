"""The balance as one HTML page that opens offline."""
