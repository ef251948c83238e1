"""One self-contained HTML file over a folder of results."""
