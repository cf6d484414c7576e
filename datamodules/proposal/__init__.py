"""Proposes how a table is to be read: which column holds what, why that is likely, and what remains unsure."""
