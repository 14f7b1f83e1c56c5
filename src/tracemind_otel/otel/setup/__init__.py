"""`configure()` and what it builds. The SDK is imported inside functions."""
