"""Evaluations on a Ray cluster; nothing else imports ray."""
