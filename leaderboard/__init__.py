"""Tables from records. Knows records and nothing of torch."""
