"""The studio: one page in the browser to start runs, watch them, compare them, and look at what they answered."""
