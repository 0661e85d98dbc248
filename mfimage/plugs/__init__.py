"""Adapters for other libraries, each in that library's words; none is imported unless it is asked for."""
