"""Rows brought across and compared, chunk by chunk."""
