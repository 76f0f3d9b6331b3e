"""The shell: what is woken, compares goals with what is found, and acts."""
