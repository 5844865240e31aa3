"""Refining: from web pages to training text, with every removal accounted for. Needs the extra `refine`."""
