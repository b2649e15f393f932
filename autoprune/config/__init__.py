"""Job files: what a job may say, checked before anything is built."""
