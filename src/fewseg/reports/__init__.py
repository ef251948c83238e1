"""Tables of results, comparisons of them, and the published values to print beside ours."""
