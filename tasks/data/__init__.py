"""Shipped data of the tasks, each file with its licence."""
