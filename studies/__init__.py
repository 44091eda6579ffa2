"""What takes too long for a notebook: one script a study, run as `python -m studies.<name>`."""
