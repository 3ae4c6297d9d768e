"""Backups of the operations database and its definitions, and installations that are made of them."""
