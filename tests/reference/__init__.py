"""Golden files from the original groundingdino package: what makes them, and what reads them."""
