"""Every method under every test on four trained models: which tests agree, and which method wins."""
