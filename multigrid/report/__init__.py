"""What stands at the end of a run: files for pictures, the pictures, the page and the table."""
