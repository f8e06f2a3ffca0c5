"""Images that travel with the package; `tools/make_bundle.py` made them."""
