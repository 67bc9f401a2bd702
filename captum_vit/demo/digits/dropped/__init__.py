"""The demo classifier trained on with patches missing: how it was made, and what it says without some of them."""
